"""What every test shares: an embedded Valkey-free, network-free Django, and loud skips for missing services."""

import os
import tempfile
from pathlib import Path

import pytest

# Settings are read at import; each pytest-xdist worker gets a folder of its own, so nothing is shared by accident.
_FOLDER = Path(tempfile.mkdtemp(prefix="tinyfleet-tests-"))
os.environ.setdefault("TINYFLEET_VAR", str(_FOLDER / "var"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A port that refuses at once: no test talks by accident to a server that somebody runs on this machine.
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1/0")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Keep SQLite in a file: threads and processes of one test then meet the locking that users meet."""
    from django.db import connections

    options = connections["default"].settings_dict
    if options["ENGINE"].endswith("sqlite3"):
        options["TEST"]["NAME"] = str(_FOLDER / "test.sqlite3")


def pytest_unconfigure() -> None:
    """Remove this worker's folder."""
    import shutil

    shutil.rmtree(_FOLDER, ignore_errors=True)
