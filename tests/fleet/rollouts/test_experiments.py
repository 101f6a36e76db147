"""Experiments: two versions on random halves, counted pair by pair, until one is better."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from fleet.errors import Conflict, Refused
from fleet.rollouts import experiments, terms
from fleet.rollouts.models import Experiment, Pair, Rollout
from tests.factories import ArtifactFactory, VersionFactory
from tests.fleet.pages import Reader
from tests.fleet.rollouts.test_evidence import report
from tests.fleet.rollouts.world import RULES, World

pytestmark = pytest.mark.django_db

TERMS = {"observe_seconds": 60, "min_count": 50}


def begin(world: World, **changes: Any) -> Experiment:
    """Version 1, which everybody runs, against version 2."""
    order = experiments.order_of(
        version_a=world.v1.version,
        version_b=world.v2.version,
        group=world.group,
        rules={**RULES, "waves": ["100%"]},
        wanted={**TERMS, **changes},
    )
    made = experiments.create(world.user, order, world.now)
    world.tick(3)
    return made


def names(experiment: Experiment, side: str) -> list[str]:
    found = experiment.pairs.values_list(f"device_{side}__name", flat=True)
    return [name for name in found if name]


def answers(world: World, experiment: Experiment, right_a: int, right_b: int) -> None:
    """Every device gets labels: so many of a hundred are right."""
    at = world.now + timedelta(minutes=1)
    for side, artifact, right in (("a", world.v1, right_a), ("b", world.v2, right_b)):
        for n, name in enumerate(names(experiment, side)):
            report(world, name, artifact.sha256, at, 50, labelled=100, correct=right - n % 3)
    world.tick(8, seconds=20)


def test_the_better_half_wins_and_is_promoted_by_rule() -> None:
    """Only half of the devices get the new version; when it has won, the others do."""
    world = World(18)
    made = begin(world, promote="winner")
    assert made.rollouts.count() == 1, "half a runs its version already"
    half = names(made, "b")
    assert len(half) == 9
    assert sorted(device.name for device in world.offered()) == sorted(half)
    world.succeed(world.offered())
    world.tick(2, seconds=15)
    assert set(made.pairs.values_list("state", flat=True)) == {"watched"}
    answers(world, made, right_a=80, right_b=95)
    made = experiments.by_id(made.pk)
    assert (made.state, made.winner) == ("promoted", "b")
    assert made.finding["pairs"] == 9
    assert "v2 is better in accuracy by 15.0 points, on 9 pairs" in made.reason
    assert made.promotion is not None
    asked = made.promotion.deliveries.values_list("device__name", flat=True)
    assert sorted(asked) == sorted(names(made, "a"))


def test_without_a_difference_it_ends_undecided_and_a_person_may_promote() -> None:
    """Each pair is counted once; nothing is promoted by itself."""
    world = World(8)
    made = begin(world, promote="winner")
    world.succeed(world.offered())
    world.tick(2, seconds=15)
    answers(world, made, right_a=90, right_b=90)
    made = experiments.by_id(made.pk)
    assert (made.state, made.winner) == ("undecided", "")
    assert "every pair is counted, and 4 pairs do not show that either is better" in made.reason
    assert made.rollouts.count() == Rollout.objects.count() == 1
    experiments.promote(world.user, made, "a", world.now, note="simpler")
    again = experiments.promote(world.user, made, "a", world.now)
    assert (again.state, again.winner, again.reason) == (
        "promoted",
        "a",
        f"{world.v1.version} was promoted: simpler",
    )
    assert again.promotion is not None
    with pytest.raises(Conflict, match="promoted the other version"):
        experiments.promote(world.user, made, "b", world.now)


def test_devices_that_cannot_keep_their_version_count_against_it() -> None:
    """Seven pairs that lost decide by themselves."""
    world = World(14)
    made = begin(world)
    Rollout.objects.update(
        strategy={**made.rollouts.get().strategy, "safety_limit": 1.0, "p0": 0.4, "p1": 0.9}
    )
    for device in world.offered():
        device.status("rejected", world.now, reason="no room")
    world.tick(3, seconds=15)
    made = experiments.by_id(made.pk)
    assert (made.state, made.winner) == ("decided", "a")
    assert made.pairs.filter(lost="b").count() == 7


def test_too_few_labels_wait_until_time_is_up() -> None:
    """A pair is not counted before both have enough."""
    world = World(4)
    made = begin(world, max_seconds=3600)
    world.succeed(world.offered())
    world.tick(20, seconds=20)
    assert set(made.pairs.values_list("state", flat=True)) == {"watched"}
    world.tick(1, hours=1)
    assert experiments.by_id(made.pk).reason.startswith("time is up, and 0 pairs")


def test_its_devices_belong_to_it_and_nobody_else() -> None:
    """Another rollout, or experiment, leaves them out while it runs."""
    world = World(4)
    made = begin(world)
    world.succeed(world.offered())
    world.tick(4)
    v3 = ArtifactFactory(version=VersionFactory(model=world.v1.version.model))
    with pytest.raises(Conflict, match=f"experiment {made.pk} is at work on it"):
        world.create(version=v3.version, priority=100)
    with pytest.raises(Refused, match="no two devices"):
        begin(world)
    experiments.stop(world.user, made, "revert", world.now)
    world.tick(3)
    assert experiments.by_id(made.pk).state == "stopped"
    assert made.rollouts.get().state == "rolling_back"


def test_what_a_half_cannot_do_is_refused_in_words() -> None:
    """An experiment divides the group by itself."""
    world = World(4)
    for rules, words in (
        ({"who": {"hold_back": "20%"}}, "cannot be made with hold_back"),
        ({"trial": {"shadow": True}}, "cannot be made with trial.shadow"),
    ):
        order = experiments.order_of(
            version_a=world.v1.version, version_b=world.v2.version, group=world.group, rules=rules
        )
        with pytest.raises(Refused, match=words):
            experiments.preview(world.user, order)
    with pytest.raises(Refused, match="alpha"):
        terms.read({"alpha": 1e-300})  # asks for more pairs than there are numbers
    with pytest.raises(Refused, match="cannot be compared"):
        experiments.order_of(version_a=world.v1.version, version_b=world.v1.version, group=world.group)


def test_over_the_api_and_on_the_page(client: Client) -> None:
    """Dry run, start, pairs, promotion by hand."""
    world = World(17)
    client.force_login(world.user)
    world.now = timezone.now()
    body = {
        "model": world.v1.version.model.slug,
        "version_a": 1,
        "version_b": 2,
        "group": "lab",
        "terms": TERMS,
        "strategy": {**RULES, "waves": ["100%"]},
    }

    def post(path: str, data: Any) -> Any:
        return client.post(f"/api/v1/experiments{path}", data, content_type="application/json")

    found = post("/plan", body).json()
    assert (found["pairs"], found["alone"]) == (8, 1)
    assert found["sentence"].startswith("8 pairs of devices; 7 decide")
    pk = post("", body).json()["id"]
    assert post("", {**body, "terms": {"metric": "x"}}).json()["error"] == "refused"
    world.tick(3)
    world.succeed(world.offered())
    world.tick(2, seconds=15)
    made = experiments.by_id(pk)
    answers(world, made, right_a=95, right_b=50)
    found = client.get(f"/api/v1/experiments/{pk}").json()
    assert (found["state"], found["winner"], found["verbs"]) == ("decided", "a", ["promote", "stop"])
    assert found["pairs"] == {"counted": 8, "out": 1}
    rows = client.get(f"/api/v1/experiments/{pk}/pairs").json()["items"]
    assert rows[0]["value_a"] > rows[0]["value_b"]
    page = client.get(f"/experiments/{pk}/").content.decode()
    assert "v1 is better in accuracy by 45.0 points, on 8 pairs" in page
    assert "Promote a" in page
    assert "a is better by 45.0 points on average; between" in page
    assert "v1 is better in accuracy" in client.get("/").content.decode(), "it waits for a person"
    assert client.get("/experiments/").content.decode().count(f"/experiments/{pk}/") == 1
    client.post(f"/experiments/{pk}/promote-a/", {"reason": "as shown"})
    assert client.get(f"/api/v1/experiments/{pk}").json()["state"] == "promoted"


def test_the_form_shows_the_dry_run_and_starts() -> None:
    """What cannot be compared is said beside the form."""
    world, client = World(4), Reader()
    client.force_login(world.user)
    fields = {
        "version_a": world.v1.version.pk,
        "version_b": world.v2.version.pk,
        "group": "lab",
        "app": "main",
        "metric": "latency",
        "observe_seconds": 60,
        "min_count": 1,
        "max_seconds": 600,
        "promote": "by_hand",
    }
    dry = client.get("/experiments/new/", {**fields, "dry": 1}).content.decode()
    assert "2 pairs of devices cannot decide anything: 7 are needed" in dry
    assert "Start with 2 pairs" in dry
    same = client.post("/experiments/new/", {**fields, "version_b": world.v1.version.pk})
    assert same.status_code == 422
    assert "cannot be compared" in same.content.decode()
    assert client.post("/experiments/new/", fields).headers["Location"].startswith("/experiments/")


def test_a_device_that_leaves_takes_its_pair_out() -> None:
    """What it says later is not counted."""
    world = World(4)
    made = begin(world)
    world.succeed(world.offered())
    world.tick(2, seconds=15)
    pair = made.pairs.first()
    assert pair is not None
    assert pair.device_b is not None
    type(pair.device_b).objects.filter(pk=pair.device_b_id).update(state="retired")
    world.tick(2, seconds=15)
    pair.refresh_from_db()
    assert (pair.state, pair.reason) == (Pair.State.OUT, "the device of half b does not run its version")
