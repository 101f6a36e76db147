"""The wheel that people install holds everything the server needs, and works away from the checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fleet", "compression_jobs", "device_agent")

DRAW_A_PAGE = """
import fleet, django
django.setup()
from django.contrib.staticfiles import finders
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.template.loader import get_template
from fleet.cli import embedded, stack
from fleet.config.management.commands import bootstrap
loader = MigrationLoader(None)
assert {"registry", "inventory", "rollouts", "telemetry", "compression_jobs"} <= loader.migrated_apps
get_template("dashboard/login.html").render({})
assert finders.find("dashboard/app.css") and finders.find("vendor/echarts-6.1.0.min.js")
print(fleet.__path__[0])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in sources if "__pycache__" not in path.parts}
    assert wanted - set(wheel.namelist()) == set()
    assert not [name for name in wheel.namelist() if name.startswith(("tests/", "var/"))]


def test_it_starts_both_commands(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(entry_points).decode()
    assert "tinyfleet = fleet.cli.main:main" in text
    assert "tinyfleet-agent = device_agent.__main__:main" in text


def test_a_device_gets_three_packages_and_no_more(wheel: zipfile.ZipFile) -> None:
    [metadata] = [name for name in wheel.namelist() if name.endswith("dist-info/METADATA")]
    lines = [
        line for line in wheel.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: ")
    ]
    asked = {
        re.split(r"[^\w-]", line.removeprefix("Requires-Dist: "))[0]
        for line in lines
        if line.endswith("extra == 'agent'")
    }
    assert asked == {"numpy", "onnxruntime", "paho-mqtt"}
    assert all("extra ==" in line for line in lines)  # without an extra it brings nothing


def test_the_server_needs_nothing_of_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "site"),
        "TINYFLEET_VAR": str(tmp_path / "var"),
        "DJANGO_SETTINGS_MODULE": "fleet.config.settings",
    }
    command = [sys.executable, "-c", DRAW_A_PAGE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "site" / "fleet")
