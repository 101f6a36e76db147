"""A real PostgreSQL for tests in which several processes' threads act on the same rows."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connections

from tests.services import postgresql

TABLES = ("rollouts_rollout", "inventory_device", "inventory_devicegroup", "registry_model", "auth_user")

Together = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[None]:
    """The default connection leads to a fresh PostgreSQL with every migration applied, until the module ends."""
    from fleet.config.connections import database

    with postgresql(tmp_path_factory.mktemp("races")) as url, django_db_blocker.unblock():
        before = connections.settings
        connections["default"].close()
        given = {"default": database(url, None)}  # type: ignore[arg-type]
        connections.settings = connections.configure_settings(given)
        del connections["default"]
        ContentType.objects.clear_cache()
        call_command("migrate", verbosity=0)
        yield
        connections["default"].close()
        connections.settings = before
        del connections["default"]
        ContentType.objects.clear_cache()


@pytest.fixture
def on_postgresql(migrated: None, django_db_blocker: Any) -> Iterator[None]:
    """Empty tables afterwards."""
    with django_db_blocker.unblock():
        yield
        with connections["default"].cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")


@pytest.fixture
def together(on_postgresql: None) -> Together:
    """Call functions at the same moment, a thread and a connection each; what each returned or raised."""

    def run(*functions: Callable[[], Any]) -> list[Any]:
        barrier = Barrier(len(functions))

        def one(function: Callable[[], Any]) -> Any:
            try:
                connections["default"].ensure_connection()
                barrier.wait(10)
                return function()
            except Exception as error:  # noqa: BLE001  what a thread met is what the test looks at
                return error
            finally:
                connections["default"].close()

        with ThreadPoolExecutor(len(functions)) as pool:
            return list(pool.map(one, functions))

    return run
