"""Targets: presets as the code has them, people's own beside them."""

import pytest

from compression_jobs.pipeline.targets import TARGETS
from fleet.accounts.roles import Role
from fleet.registry.models import Target
from fleet.registry.presets import pipeline_target, sync_targets
from tests.factories import api_client

pytestmark = pytest.mark.django_db

MINE = {
    "slug": "my-board",
    "name": "My board",
    "runtime": "onnxruntime",
    "clock_hz": 1_000_000_000,
    "flash_total_bytes": 1000,
    "ram_total_bytes": 2000,
    "subtraction": [{"what": "system", "flash_bytes": 400, "ram_bytes": 500}],
}


def test_every_preset_has_its_row_after_migrating() -> None:
    rows = {row.slug: row for row in Target.objects.filter(is_preset=True)}
    assert set(rows) == set(TARGETS)
    assert all(pipeline_target(row) == TARGETS[slug] for slug, row in rows.items())
    assert all(row.export_only == TARGETS[slug].export_only for slug, row in rows.items())


def test_syncing_follows_the_code_and_leaves_a_person_s_target_alone() -> None:
    Target.objects.filter(slug="raspberry-pi-4").update(ram_bytes=1)
    Target.objects.filter(slug="jetson-nano").update(is_preset=False, name="ours", ram_bytes=7)
    sync_targets()
    assert Target.objects.get(slug="raspberry-pi-4").ram_bytes == TARGETS["raspberry-pi-4"].ram_bytes
    assert Target.objects.get(slug="jetson-nano").ram_bytes == 7


def test_what_is_free_follows_from_totals_and_subtraction() -> None:
    client = api_client(Role.ENGINEER)
    made = client.post("/api/v1/targets", MINE, content_type="application/json")
    assert made.status_code == 201, made.content
    assert (made.json()["flash_bytes"], made.json()["ram_bytes"]) == (600, 1500)
    again = client.post("/api/v1/targets", MINE, content_type="application/json")
    assert (again.status_code, again.json()["error"]) == (409, "duplicate")


def test_a_target_without_room_for_a_model_is_refused() -> None:
    full = MINE | {"subtraction": [{"what": "system", "flash_bytes": 1000}]}
    answer = api_client(Role.ENGINEER).post("/api/v1/targets", full, content_type="application/json")
    assert answer.status_code == 422
    assert "leaves no flash for a model" in answer.json()["detail"]


def test_targets_are_listed_by_runtime() -> None:
    listed = api_client(Role.VIEWER).get("/api/v1/targets?runtime=tflite-micro").json()
    assert {each["slug"] for each in listed["items"]} == {"stm32f746", "nrf52840"}
    assert all(each["export_only"] for each in listed["items"])
