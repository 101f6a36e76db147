"""Every page in a real browser: no complaint, no sideways scrolling, no serious finding of axe, in both themes and widths."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser

from fleet.events import CHANGES
from tests.browser.conftest import Visitor
from tests.services import until

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text()
RUN_AXE = """async () => (await axe.run({resultTypes: ["violations"]})).violations
    .filter((found) => ["serious", "critical"].includes(found.impact))
    .map((found) => found.id + ": " + found.nodes.map((node) => node.target.join(" ")).join(", "))"""
DRY_RUN = "dry=1&version=2&group=berlin&app=camera&waves=1,100%25&soak_seconds=60&min_inferences=50&min_labelled=0&max_seconds=600"

PAGES = {
    "overview": "/",
    "models": "/models/",
    "model": "/models/digits/",
    "version": "/models/digits/3/",
    "refused": "/models/wake-word/1/",
    "checking": "/models/wake-word/2/",
    "artifact": "/artifacts/1/",
    "upload": "/models/digits/upload/",
    "datasets": "/datasets/",
    "dataset": "/datasets/1/",
    "targets": "/targets/",
    "jobs": "/jobs/",
    "job": "/jobs/1/",
    "job-form": "/jobs/new/",
    "recipe": "/jobs/new/?like=4",
    "devices": "/devices/",
    "device": "/devices/meter-01/",
    "groups": "/groups/",
    "group": "/groups/office/",
    "rollouts": "/rollouts/",
    "rollout": "/rollouts/3/",
    "rolled-back": "/rollouts/2/",
    "wizard": f"/rollouts/new/?{DRY_RUN}",
    "simulation": f"/rollouts/simulate/?{DRY_RUN}&failing=10&own_verdict=on&rollouts=200",
    "experiments": "/experiments/",
    "experiment": "/experiments/1/",
    "experiment-form": "/experiments/new/",
    "telemetry": "/telemetry/",
    "enrolment": "/enrolment/",
    "history": "/history/",
    "notifications": "/notifications/",
    "account": "/account/",
    "help": "/help/",
    "search": "/search/?q=digits",
}

# Contrast depends on the theme and structure on the width; two of the four see both.
LOOKED_AT_BY_AXE = {(1280, "light"), (390, "dark")}

Visit = Callable[..., Visitor]


@pytest.fixture
def visitor(browser: Browser, server: str, session: dict[str, Any]) -> Iterator[Visit]:
    """Opens windows of a width and theme for somebody who is logged in."""
    contexts = []

    def make(width: int = 1280, theme: Any = "light", **options: Any) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, storage_state=session, **options
        )  # type: ignore[arg-type]
        contexts.append(context)
        return Visitor(context, server)

    yield make
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")])
def test_every_page_is_quiet_fits_and_is_accessible(width: int, theme: str, visitor: Visit) -> None:
    guest, problems = visitor(width, theme), []
    for name, path in PAGES.items():
        page = guest.visit(path)
        problems += [f"{name}: {text}" for text in guest.complaints]
        guest.complaints.clear()
        across = page.evaluate("document.documentElement.scrollWidth")
        problems += [f"{name} is {across} px wide"] if across > width else []
        if (width, theme) in LOOKED_AT_BY_AXE:
            page.evaluate(AXE)
            problems += [f"{name}: {found}" for found in page.evaluate(RUN_AXE)]
        if os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{name}-{width}-{theme}.png", full_page=True)
    assert problems == []


def test_the_theme_is_right_before_the_first_paint_and_a_choice_is_kept(visitor: Visit) -> None:
    guest = visitor(theme="dark")
    page = guest.visit("/")
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    page.click("[data-toggle-theme]")
    assert guest.visit("/models/").evaluate("document.documentElement.dataset.bsTheme") == "light"


def test_charts_are_drawn_and_their_values_open_as_a_table(visitor: Visit) -> None:
    page = visitor().visit("/telemetry/")
    page.wait_for_selector("[data-chart=latency-option] svg path", state="attached")
    page.click("#latency-details summary")
    assert page.locator("#latency-details tbody tr").count() > 30


def test_keys_lead_to_places_and_can_be_switched_off(visitor: Visit) -> None:
    guest = visitor()
    page = guest.visit("/")
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url("**/devices/")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.textContent") == "meter-01"
    page.keyboard.press("/")
    page.keyboard.type("digits")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/?q=digits")
    page = guest.visit("/help/")
    page.uncheck("[data-keys]")
    page.keyboard.press("Tab")
    page.keyboard.press("g")
    page.keyboard.press("o")
    assert page.url.endswith("/help/")


def test_a_name_on_the_stream_fetches_the_region_again_and_keeps_what_was_opened(
    visitor: Visit, redis_url: str
) -> None:
    guest = visitor()
    guest.page.add_init_script("window.setInterval = () => 0")  # no polling: only the stream is left
    with guest.page.expect_response("**/stream/?names=*"):
        page = guest.visit("/rollouts/3/")
    page.click("#wave-1-figures summary")
    page.evaluate("document.querySelector('#rollout').dataset.old = 'yes'")
    client = redis.Redis.from_url(redis_url)
    until("the page to listen", lambda: client.publish(CHANGES, "job:1 rollout:3"))
    page.wait_for_selector("#rollout:not([data-old])")
    page.wait_for_selector("#wave-1-figures[open]")


def test_a_roll_back_is_asked_for_and_done_without_javascript(visitor: Visit) -> None:
    page = visitor(java_script_enabled=False).visit("/rollouts/1/")
    page.click("text=Roll back …")
    question = page.get_by_role("dialog")
    assert "Roll back digits on 12 devices?" in question.inner_text()
    page.keyboard.press("Escape")
    assert not question.is_visible()
    page.click("text=Roll back …")
    question.get_by_role("button", name="Roll back").click()
    assert "Rolling back." in page.inner_text("main")


def test_on_a_phone_the_menu_opens_and_without_javascript_it_is_open(visitor: Visit) -> None:
    page = visitor(390).visit("/")
    assert not page.is_visible("#menu")
    page.click("[data-menu]")
    assert page.is_visible("#menu")
    assert visitor(390, java_script_enabled=False).visit("/").is_visible("#menu")
