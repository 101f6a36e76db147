"""A real server with a seeded fleet, and a real browser; loud skips where no Chromium is installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from fleet.cli.embedded import valkey_binary
from tests.browser.seed_workshop import PASSWORD
from tests.services import free_port, running

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
SEED = "from tests.browser.seed import main; main()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or Google's; for one module, because its event loop stays running in this thread until it closes."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip(
            "no chromium is installed, so pages are NOT tested in a browser here (as root on Debian, `make test` installs it)"
        )
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def redis_url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey of its own."""
    port, folder = free_port(), tmp_path_factory.mktemp("valkey")
    with running([str(valkey_binary()), "--port", str(port), "--dir", str(folder), "--save", ""], port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def server(browser: Browser, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of uvicorn over a database of its own, with a Valkey for the stream."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    own = {
        "TINYFLEET_VAR": str(tmp_path_factory.mktemp("var")),
        "PUBLIC_URL": address,
        "REDIS_URL": redis_url,
        "DATABASE_URL": "",
        "DJANGO_SETTINGS_MODULE": "fleet.config.settings",
    }
    environment = {**os.environ, **own}
    seed = [sys.executable, "manage.py", "shell", "--no-imports", "-c", SEED]
    subprocess.run(seed, cwd=ROOT, env=environment, check=True, capture_output=True)
    serve = [
        sys.executable,
        "-m",
        "uvicorn",
        "fleet.config.asgi:application",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    with running(serve, port, cwd=ROOT, env=environment):
        yield address


@pytest.fixture(scope="module")
def session(browser: Browser, server: str) -> dict[str, object]:
    """The cookies of a log-in through the form."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server}/login/")
        page.fill("#id_username", "ada")
        page.fill("#id_password", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url(f"{server}/")
        return dict(context.storage_state())


class Visitor:
    """A page that remembers everything the browser complained about."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self.context, self.server = context, server
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def visit(self, path: str) -> Page:
        """The page at a path, loaded."""
        self.page.goto(self.server + path, wait_until="load")
        return self.page
