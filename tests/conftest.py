"""What every test shares: a database file and a folder for each test process, see tests/settings.py."""

import shutil

import pytest

from tests.settings import FOLDER


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Keep SQLite in a file: threads and processes of one test then meet the locking that users meet."""
    from django.db import connections

    options = connections["default"].settings_dict
    if options["ENGINE"].endswith("sqlite3"):
        options["TEST"]["NAME"] = str(FOLDER / "test.sqlite3")


def pytest_unconfigure() -> None:
    """Remove this process's folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
