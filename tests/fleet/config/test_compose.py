"""docker-compose.yml parses, and names only things that exist."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from fleet.config.celery import COMPRESSION, CONTROL
from fleet.config.environment import VARIABLES

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
OUTSIDE = {"DJANGO_SETTINGS_MODULE", "OMP_NUM_THREADS", "DEVICE", "POSTGRES_PASSWORD", "MQTT_PASSWORD"}


def words(name: str) -> list[str]:
    command = SERVICES[name].get("command", [])
    return re.split(r"\s+", " ".join(map(str, command)))


def test_everything_the_issue_asks_for_is_there():
    wanted = {
        "web",
        "worker",
        "worker-control",
        "beat",
        "gateway",
        "postgres",
        "redis",
        "mosquitto",
        "agent-1",
        "agent-2",
    }
    assert wanted <= set(SERVICES)


def test_services_depend_on_services_that_exist_and_can_be_healthy():
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, f"{name} depends on {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], f"{name} waits for {needed} to be healthy"
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[needed].get("restart", "no") == "no", f"{needed} never completes"


def test_volumes_and_configs_are_declared_and_used():
    named = {
        volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())
    }
    assert named == set(COMPOSE["volumes"])
    assert {each["source"] for service in SERVICES.values() for each in service.get("configs", ())} == set(
        COMPOSE["configs"]
    )


@pytest.mark.parametrize("name", OURS)
def test_our_images_install_extras_and_copy_folders_that_exist(name):
    lines = SERVICES[name]["build"]["dockerfile_inline"].splitlines()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines:
        for extra in re.findall(r"'\.\[([^]]+)\]'", line):
            assert set(extra.split(",")) <= set(extras)
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])


@pytest.mark.parametrize("name", OURS)
def test_our_commands_start_modules_and_commands_that_exist(name):
    command = words(name)
    for module in (command[i + 1] for i, word in enumerate(command) if word == "-m"):
        assert importlib.util.find_spec(module), module
        if module == "django":
            assert command[command.index("django") + 1] in get_commands()
    for dotted in re.findall(r"\b(fleet\.config\.\w+)", " ".join(command)):
        assert importlib.util.find_spec(dotted), dotted
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {word for word in command if word.startswith("tinyfleet") and "." not in word} <= set(scripts)


def test_every_queue_has_a_worker_named_after_it():
    for name, queue in (("worker", COMPRESSION), ("worker-control", CONTROL)):
        command = words(name)
        assert command[command.index("-Q") + 1] == queue
        assert command[command.index("-n") + 1] == f"{queue}@%h"


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_only_variables_that_are_read(name):
    assert set(SERVICES[name].get("environment", {})) <= {variable.name for variable in VARIABLES} | OUTSIDE


def test_values_from_outside_have_a_default_or_say_that_they_are_needed():
    for expression in re.findall(r"(?<!\$)\$\{([^}]+)\}", TEXT):
        assert re.match(r"[A-Z_]+:[-?]", expression), expression
