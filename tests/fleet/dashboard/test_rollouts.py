"""The wizard, the live page and its verbs."""

from typing import Any

import pytest
from django.urls import reverse

from fleet.accounts.roles import Role
from fleet.inventory.models import Device, DeviceApp, DeviceGroup
from fleet.registry.models import Artifact
from fleet.rollouts import services
from fleet.rollouts.models import Delivery, Rollout, Wave
from tests.factories import (
    ArtifactFactory,
    DeviceFactory,
    GroupFactory,
    ModelFactory,
    TargetFactory,
    UserFactory,
    VersionFactory,
)
from tests.fleet.dashboard.conftest import Login
from tests.fleet.dashboard.rows import rollout

WIZARD = "/rollouts/new/"


@pytest.fixture
def artifact(db: None) -> Artifact:
    """An artifact, a group of three that can take it and one that cannot."""
    group = GroupFactory(slug="office")
    for name in ("one", "two", "three"):
        DeviceFactory(name=name, groups=[group])
    DeviceFactory(name="other", target=TargetFactory(slug="raspberry-pi-5"), groups=[group])
    made: Artifact = ArtifactFactory(version=VersionFactory(model=ModelFactory(slug="digits")))
    return made


def form(artifact: Artifact, **changes: str) -> dict[str, str]:
    """The wizard's fields."""
    fields = {
        "version": str(artifact.version_id),
        "group": "office",
        "app": "main",
        "waves": "1, 100%",
        "soak_seconds": "60",
    }
    trial = {"min_inferences": "50", "min_labelled": "0", "max_seconds": "600"}
    return {**fields, **trial, **changes}


def test_the_dry_run_is_exactly_what_planning_says_with_a_reason_for_everybody_left_out(
    artifact: Artifact, login: Login
) -> None:
    answer = login(Role.OPERATOR).get(WIZARD, {"dry": "1", **form(artifact)})
    page, plan = answer.content.decode(), answer.context["plan"]
    operator = UserFactory(roles=[Role.OPERATOR])
    assert plan == services.preview(
        operator, version=artifact.version, group=group(), rules={"waves": [1, "100%"]}
    )
    assert "3 devices in 2 waves" in page
    assert "no artifact of this version for raspberry-pi-5" in page
    assert plan.evidence in page
    assert not Rollout.objects.exists()


def test_starting_makes_the_rollout_with_the_strategy_of_the_form(artifact: Artifact, login: Login) -> None:
    client = login(Role.OPERATOR)
    answer = client.post(WIZARD, form(artifact, min_labelled="20", require_approval="False"))
    made = Rollout.objects.get()
    assert answer.headers["Location"] == f"/rollouts/{made.pk}/"
    assert made.state == Rollout.State.SCHEDULED
    assert made.strategy["waves"] == [1, "100%"]
    assert made.strategy["trial"]["min_labelled"] == 20
    draft = client.post(WIZARD, form(artifact, draft="1", require_approval="on"))
    page = draft.headers["Location"]
    assert client.get(page).status_code == 200
    assert Rollout.objects.first().state == Rollout.State.DRAFT  # type: ignore[union-attr]
    client.post(f"{page}start/")
    assert f'action="{page}approve/"' not in client.get(page).content.decode(), "a second person does"
    assert f'action="{page}approve/"' in login(Role.OPERATOR).get(page).content.decode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": "empty"}, "has no devices"),
        ({"waves": "none"}, "neither a number of devices nor a share"),
        ({"app": "a b"}, "is no app name"),
    ],
)
def test_what_cannot_start_is_refused_in_words(
    changes: dict[str, str], words: str, artifact: Artifact, login: Login
) -> None:
    GroupFactory(slug="empty")
    client = login(Role.OPERATOR)
    assert words in client.get(WIZARD, {"dry": "1", **form(artifact, **changes)}).content.decode()
    refused = client.post(WIZARD, form(artifact, **changes))
    assert refused.status_code == 422
    assert words in refused.content.decode()


def test_the_live_page_has_bars_the_gates_sentence_and_a_roll_back_that_names_what_it_touches(
    artifact: Artifact, login: Login
) -> None:
    made = rollout(artifact, takers(), group())
    Wave.objects.update(verdict={"decision": "wait", "sentence": "the wave is under way: 1 of 3 ended"})
    Delivery.objects.filter(device__name="one").update(
        state="succeeded", evidence={"n": 54, "labelled": 22, "correct": 21}
    )
    page = login(Role.OPERATOR).get(f"/rollouts/{made.pk}/").content.decode()
    for text in (
        "1 succeeded",
        "2 at work",
        "The wave is under way: 1 of 3 ended.",
        "21 of 22 labels right",
        "Roll back digits on 3 devices?",
        f'data-live="rollout:{made.pk}"',
    ):
        assert text in page
    assert "Roll back digits" not in login().get(f"/rollouts/{made.pk}/").content.decode()


def test_roll_back_pause_and_a_verb_that_makes_no_sense(artifact: Artifact, login: Login) -> None:
    made = rollout(artifact, takers(), group())
    client = login(Role.OPERATOR)

    def act(verb: str) -> Any:
        return client.post(reverse("dashboard:rollout-act", args=[made.pk, verb]), follow=True)

    act("pause")
    made.refresh_from_db()
    assert made.state == Rollout.State.PAUSED
    assert "cannot be approved" in act("approve").content.decode()
    assert act("explode").status_code == 404
    act("roll-back")
    made.refresh_from_db()
    assert made.state in (Rollout.State.ROLLING_BACK, Rollout.State.ROLLED_BACK)
    assert made.deliveries.filter(kind=Delivery.Kind.ROLL_BACK).count() == 3


def test_a_part_goes_back_a_clone_is_made_once_and_a_start_is_scheduled(
    artifact: Artifact, login: Login
) -> None:
    made = rollout(artifact, takers(), group())
    client = login(Role.OPERATOR)
    part = {"devices": "one, two", "reason": "the camera there is another"}
    client.post(reverse("dashboard:rollout-act", args=[made.pk, "roll-back"]), part)
    assert made.deliveries.filter(kind=Delivery.Kind.ROLL_BACK).count() == 2
    page = client.get(f"/rollouts/{made.pk}/").content.decode()
    assert "One, two: 2 devices go back, 0 more are not asked: the camera there is another." in page
    client.post(reverse("dashboard:rollout-act", args=[made.pk, "abort"]))
    for _ in range(2):
        answer = client.post(f"/rollouts/{made.pk}/clone/", {"key": "k"})
    draft = Rollout.objects.get(state="draft")
    assert answer.headers["Location"] == f"/rollouts/{draft.pk}/"
    client.post(
        reverse("dashboard:rollout-act", args=[draft.pk, "schedule"]), {"start_at": "2030-01-31T02:00"}
    )
    draft.refresh_from_db()
    assert (draft.state, f"{draft.start_at:%Y-%m-%d %H:%M}") == ("scheduled", "2030-01-31 02:00")
    odd = reverse("dashboard:rollout-act", args=[draft.pk, "schedule"])
    assert "is no time" in client.post(odd, {"start_at": "soon"}, follow=True).content.decode()


def test_a_recalled_version_says_so_and_lists_who_runs_it(artifact: Artifact, login: Login) -> None:
    place = f"/models/digits/{artifact.version.number}/"
    device = takers()[0]
    DeviceApp.objects.create(device=device, artifact=artifact, artifact_sha256=artifact.sha256)
    assert login(Role.VIEWER).post(f"{place}recall/", {"reason": "x"}).status_code == 403
    client = login(Role.OPERATOR)
    assert "needs a reason" in client.post(f"{place}recall/", {"reason": ""}, follow=True).content.decode()
    page = client.post(f"{place}recall/", {"reason": "it leaks"}, follow=True).content.decode()
    for text in (
        "It leaks. No device may run it any more.",
        f'href="/devices/{device.name}/"',
        "nothing was sent",
    ):
        assert text.lower() in page.lower()
    assert "was recalled" in client.get(WIZARD, {"dry": "1", **form(artifact)}).content.decode()


def group() -> DeviceGroup:
    """The group of the fixture."""
    return DeviceGroup.objects.get(slug="office")


def takers() -> list[Device]:
    """The devices that can take the artifact."""
    return list(Device.objects.exclude(name="other"))


def test_the_dry_run_says_what_the_gates_can_catch(artifact: Artifact, login: Login) -> None:
    """Three devices cannot catch much, and the page says so."""
    page = login(Role.OPERATOR).get(WIZARD, {"dry": "1", **form(artifact)}).content.decode()
    assert "These waves cannot reliably catch a version that fails on 10% of devices" in page
    assert "the only one left" in page, "why this artifact"


def test_further_fields_reach_the_plan(artifact: Artifact, login: Login) -> None:
    """Who, and what is wrong with a cron expression."""
    client = login(Role.OPERATOR)
    plan = client.get(WIZARD, {"dry": "1", **form(artifact), "exclude": "name=two"}).context["plan"]
    assert {share.device for share in plan.shares} == {"one", "three"}
    page = client.get(WIZARD, {"dry": "1", **form(artifact), "window_cron": "61 * * * *"}).content.decode()
    assert "is no cron expression" in page


EVERY_FIELD = {
    "exclude_groups": ["attic"],
    "must_pass_through": "",
    "late_joiners": "always",
    "window_cron": "0 2 * * *",
    "window_zone": "Europe/Berlin",
    "priority": "-3",
    "approve_waves": "on",
    "ignore_consent": "on",
    "paced": "no",
    "per_minute": "5",
    "rate_factor": "3",
    "rate_after": "4",
    "rate_most": "50",
    "device_bytes_per_day": "2000000",
    "site_bytes_per_day": "9000000",
    "delivery_timeout_s": "7200",
    "timeout_offered": "100",
    "timeout_downloading": "200",
    "timeout_verifying": "300",
    "timeout_testing": "400",
    "timeout_consent": "500",
    "retry_attempts": "3",
    "retry_first_wait_s": "10",
    "retry_factor": "1.5",
    "retry_most_wait_s": "100",
    "max_errors": "2",
    "deadline_us": "5000",
    "accuracy_floor": "80",
    "trial_alpha": "1",
    "p0": "1",
    "p1": "5",
    "alpha": "4",
    "safety_limit": "25",
    "tolerated_latency": "10",
    "tolerated_heap": "",
}


def test_every_field_of_the_wizard_reaches_the_strategy_and_the_page_of_the_rollout(
    artifact: Artifact, login: Login
) -> None:
    """What is emptied is not judged, what a link does not name has its default, and the page says all of it."""
    GroupFactory(slug="attic")
    client = login(Role.OPERATOR)
    answer = client.post(WIZARD, {**form(artifact), **EVERY_FIELD, "draft": "1"}, follow=True)
    made = Rollout.objects.get().strategy
    assert made["who"] | {"rule": ""} == made["who"]
    assert (made["who"]["exclude_groups"], made["who"]["late_joiners"]) == (["attic"], "always")
    assert made["window"] == {"cron": "0 2 * * *", "minutes": 120, "zone": "Europe/Berlin"}
    assert made["rate"] == {"per_minute": 5, "factor": 3.0, "after_successes": 4, "most_per_minute": 50}
    assert made["budgets"] == {"device_bytes_per_day": 2_000_000, "site_bytes_per_day": 9_000_000}
    steps = {"offered": 100, "downloading": 200, "verifying": 300, "testing": 400, "consent": 500}
    assert made["step_timeouts"] == steps
    assert made["retry"] == {"attempts": 3, "first_wait_s": 10, "factor": 1.5, "most_wait_s": 100}
    plain = ("priority", "approve_waves", "ask_consent", "paced", "delivery_timeout_s", "p0", "p1", "alpha")
    assert [made[name] for name in plain] == [-3, True, False, False, 7200, 0.01, 0.05, 0.04]
    assert (made["trial"]["accuracy_floor"], made["trial"]["alpha"], made["trial"]["deadline_us"]) == (
        *(0.8, 0.01),
        5000,
    )
    tolerated = made["tolerated"]
    assert (tolerated["latency"], tolerated["heap"], tolerated["errors"]) == (0.1, None, 0.02)
    page = answer.content.decode()
    for words in (
        "group attic",
        "0 2 * * * for 120 minutes",
        "5 devices a minute, times 3 with each 4 successes",
    ):
        assert words in page
    for words in (
        "1.9 MiB a device and day",
        "offered 100 s",
        "answer 500 s",
        "3 in all, after 10 s",
        "latency 10.0 %",
    ):
        assert words in page


def test_the_dry_run_says_why_gate_by_gate_and_what_the_gates_catch(artifact: Artifact, login: Login) -> None:
    """Each answer once, with the devices it is about."""
    page = login(Role.OPERATOR).get(WIZARD, {"dry": "1", **form(artifact)}).content.decode()
    assert "Artifact" in page
    assert "<strong>Memory:</strong> the device has not said how much memory is free" in page
    assert "<strong>Latency:</strong> the target has no latency budget" in page
    assert "A loss of accuracy is not noticed: the trial expects no labels." in page
    assert "is 50% slower" in page
    assert 'name="tolerated_latency" value="25.0"' in page, "or the next dry run would judge nothing"


def test_the_simulation_draws_what_became_of_the_rollouts(artifact: Artifact, login: Login) -> None:
    """Every device fails: the first one stops it."""
    client = login(Role.VIEWER)
    told = {"dry": "1", **form(artifact), "failing": "100", "own_verdict": "on", "rollouts": "200"}
    answer = client.get(reverse("dashboard:rollout-simulate"), told)
    assert "is stopped in 100.0 % of rollouts" in answer.content.decode()
    assert "A good version, one that fails on 2.0 % of devices, is stopped in" in answer.content.decode()
    assert all(chart.option for chart in answer.context["charts"].values())
    slower = client.get(reverse("dashboard:rollout-simulate"), {**told, "failing": "0", "latency": "50"})
    assert "fails on 0.0 % of devices and is 50% slower is stopped in 0.0 %" in slower.content.decode()
    waits = {**told, "failing": "0", "approve_waves": "on", "answer_hours": "9", "season": "30"}
    assert "Assumed: A delivery takes 60 s on" in slower.content.decode()
    patient = client.get(reverse("dashboard:rollout-simulate"), waits).content.decode()
    assert "Half of the people who are asked answer within 9 hours" in patient
    table = client.get(reverse("dashboard:rollout-simulate"), {**told, "csv": "exposed"}).content.decode()
    assert table.startswith("\ufeffdevices exposed, from") or "devices exposed, from" in table


def test_rollout_and_device_say_why_this_artifact(artifact: Artifact, login: Login) -> None:
    """Gate by gate, as it was when it was planned."""
    why = [{"gate": "memory", "left": 1, "sentence": "96 kB of memory are free on the device"}]
    one = Rollout.objects.create(version=artifact.version, group=group(), strategy={})
    device = Device.objects.get(name="one")
    for kind in Delivery.Kind:
        Delivery.objects.create(rollout=one, device=device, artifact=artifact, kind=kind, why=why)
    client = login(Role.VIEWER)
    for address in (reverse("dashboard:rollout", args=[one.pk]), reverse("dashboard:device", args=["one"])):
        page = client.get(address).content.decode()
        assert "Why this artifact" in page
        assert "memory: 96 kB of memory are free on the device" in page


def test_an_owner_answers_on_the_page(artifact: Artifact, login: Login) -> None:
    """Tonight."""
    one = Rollout.objects.create(
        version=artifact.version, group=group(), strategy={}, state=Rollout.State.RUNNING
    )
    wave = Wave.objects.create(rollout=one, number=1, state=Wave.State.RUNNING)
    delivery = Delivery.objects.create(
        rollout=one, wave=wave, device=Device.objects.get(name="one"), artifact=artifact, consent="wanted"
    )
    client = login(Role.OPERATOR)
    assert (
        "Waiting for their owners" in client.get(reverse("dashboard:rollout", args=[one.pk])).content.decode()
    )
    client.post(reverse("dashboard:rollout-consent", args=[one.pk, "one"]), {"answer": "tonight"})
    delivery.refresh_from_db()
    assert delivery.consent == "tonight"
