"""What the search does when nothing cheap fits: it trains, guided by the budgets, and stops when asked."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from compression_jobs.pipeline.candidate import Candidate, Progress, Result
from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.errors import Cancelled
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph.ingest import canonicalise
from compression_jobs.pipeline.ladder import FLOAT, LADDERS, int8
from compression_jobs.pipeline.search import search
from compression_jobs.pipeline.shrinking import (
    Course,
    course_for,
    shared,
    shortened,
    sized,
    taught,
    thinned,
    weighed,
)
from compression_jobs.pipeline.targets import TARGETS, Reserve, Target
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.passes.test_sensitivity import with_a_loud_channel

PI = TARGETS["raspberry-pi-4"]


def board(slug: str, flash_bytes: int, ram_bytes: int = 1 << 30, runtime: str = "onnxruntime") -> Target:
    """A board with so much free for a model."""
    plain = PI.model_dump(exclude={"flash_bytes", "ram_bytes", "export_only", "subtraction"})
    totals = {"flash_total_bytes": flash_bytes + 1, "ram_total_bytes": ram_bytes}
    reserve = {"subtraction": [Reserve(what="loader", flash_bytes=1)]}
    return Target.model_validate(plain | {"slug": slug, "runtime": runtime} | totals | reserve)


TARGETS_SMALL = {"small": board("small", 9_000), "smaller": board("smaller", 7_500)}


@pytest.fixture
def one_cheap_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LADDERS, "onnxruntime", [[FLOAT, int8(granularity="per_tensor")]])


def find(digits: Digits, out: Path, slugs: list[str], told: list[Progress], **more: Any) -> dict[str, Result]:
    goals = [Goal(target=slug, max_drop=0.1) for slug in slugs]
    given: dict[str, Any] = {"out": out, "progress": told.append, "targets": TARGETS_SMALL, **more}
    return search(goals, digits.model, digits.dataset, **given)


@pytest.mark.usefixtures("one_cheap_recipe")
class TestRealSearch:
    """On the network trained on digits."""

    def test_several_targets_take_sub_networks_of_one_training(self, digits: Digits, tmp_path: Path) -> None:
        told: list[Progress] = []
        results = find(digits, tmp_path, ["small", "smaller"], told)
        for slug, result in results.items():
            assert result.met, result.sentence
            assert result.winner is not None
            assert result.winner.bytes <= TARGETS_SMALL[slug].flash_bytes
            assert result.winner.drop["value"] <= 0.1
            assert (tmp_path / slug / "model.onnx").stat().st_size == result.winner.bytes
            assert "subnet" in [step["name"] for step in result.winner.lineage["steps"]]
            assert "torch" in result.winner.lineage["packages"]
        assert [c.path for c in results["small"].candidates] == [
            c.path for c in results["smaller"].candidates
        ]
        assert len(list((tmp_path / "stages").glob("*.onnx"))) == 1 + len(
            {str(c.recipe) for c in results["small"].candidates if "subnet" in c.id}
        )
        assert json.loads((tmp_path / "sensitivity.json").read_text())["layers"]
        assert told[-1].done == told[-1].total

    def test_a_search_cancelled_while_training_stops_at_once_and_goes_on_with_what_is_trained(
        self, digits: Digits, tmp_path: Path
    ) -> None:
        told: list[Progress] = []
        asked = threading.Event()

        def cancelled() -> bool:
            if any("prune_channels, step" in each.message for each in told):
                asked.set()
            return asked.is_set()

        with pytest.raises(Cancelled):
            find(digits, tmp_path, ["small"], told, cancelled=cancelled)
        measured = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("facts.json")}
        assert measured
        result = find(digits, tmp_path, ["small"], told)["small"]
        assert result.met
        assert all(path.stat().st_mtime_ns == before for path, before in measured.items())
        fresh = find(digits, tmp_path / "fresh", ["small"], [])["small"]
        assert [c.sha256 for c in fresh.candidates] == [c.sha256 for c in result.candidates]

    def test_effort_ends_the_search_and_the_nearest_candidate_is_named(
        self, digits: Digits, tmp_path: Path
    ) -> None:
        result = find(digits, tmp_path, ["smaller"], [], effort=Effort(train_steps=100))["smaller"]
        assert not result.met
        assert len(result.candidates) == 1
        assert "flash binds; the nearest is canonicalise-quantize" in result.sentence

    def test_a_clock_that_ran_out_is_written_into_the_lineage(self, digits: Digits, tmp_path: Path) -> None:
        result = find(digits, tmp_path, ["smaller"], [], effort=Effort(max_seconds=1e-3))["smaller"]
        assert result.candidates[0].lineage["cut_short"] is True


def test_layers_that_int8_costs_most_stay_in_float_where_onnxruntime_runs_both(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LADDERS, "onnxruntime", [[FLOAT], [FLOAT, int8()]])
    graph = canonicalise(digits.model, Dataset.load(digits.dataset).rows("calibration")[0][:8])
    name = with_a_loud_channel(graph, 1000.0)
    graph.save(tmp_path / "loud.onnx")
    result = search(
        [Goal(target="raspberry-pi-4", max_drop=0.02)], tmp_path / "loud.onnx", digits.dataset, out=tmp_path
    )["raspberry-pi-4"]
    real, rounded, mixed = result.candidates
    assert result.winner is mixed
    assert "points allowed" in str(rounded.rejected)
    assert mixed.recipe[-1]["options"]["float_layers"] == [name]
    assert rounded.bytes < mixed.bytes < real.bytes
    assert f"left in float, as the recipe says: {name}" in mixed.notes[0]


# --- strategies on invented measurements -----------------------------------------------------------


def measured(bytes_: int, drop: float, ram: int = 1000, accuracy: float = 0.95) -> Candidate:
    return Candidate(
        f"c{bytes_}",
        "mcu",
        [FLOAT, int8(granularity="per_tensor")],
        bytes=bytes_,
        format="tflite",
        peak_ram_bytes=ram,
        accuracy={"value": accuracy, "n": 300, "low": 0, "high": 1},
        reference_accuracy={"value": 0.97},
        drop={"value": drop, "low": 0, "high": 1},
        rejected="flash",
        lineage={"output": {"scale": 1.0}},
    )


def course(base: Candidate, flash: int, ram: int = 1 << 20) -> Course:
    target = board("mcu", flash, ram)
    found = course_for(Goal(target="mcu", max_drop=0.02), target, [base])
    assert found is not None
    return found


def names(steps: list[dict[str, Any]]) -> list[str]:
    return [step["name"] for step in steps]


def test_rungs_that_cannot_fit_are_not_measured() -> None:
    first = next(thinned(course(measured(80_000, 0.0), flash=20_000)))
    assert (
        names(first).count("prune_channels") == 3
    )  # a share of 0.51, a quarter of the bytes, with some slack
    by_ram = next(thinned(course(measured(80_000, 0.0, ram=10_000), flash=90_000, ram=3_000)))
    assert names(by_ram).count("prune_channels") > names(first).count("prune_channels")


def test_too_large_goes_on_and_too_inaccurate_is_first_trained_with_int8_then_pruned_less() -> None:
    walk = thinned(course(measured(80_000, 0.0), flash=20_000))
    first = next(walk)
    second = walk.send(measured(25_000, 0.0))
    assert len(second) == len(first) + 1
    aware = walk.send(measured(18_000, 0.05))
    assert names(aware)[-2:] == ["qat", "quantize"]
    assert {step["options"]["granularity"] for step in aware[-2:]} == {"per_tensor"}
    finer = walk.send(measured(18_000, 0.04))
    assert finer[-3]["options"]["ratio"] < first[1]["options"]["ratio"]
    with pytest.raises(StopIteration):
        walk.send(measured(19_900, 0.03))


@pytest.mark.parametrize("strategy", [thinned, taught, shortened, shared, weighed, sized])
def test_what_meets_the_goal_ends_a_strategy(strategy: Any) -> None:
    walk = strategy(course(measured(80_000, 0.0), flash=20_000))
    next(walk)
    with pytest.raises(StopIteration):
        walk.send(measured(18_000, 0.0))


def answer(walk: Any, candidate: Candidate) -> Any:
    """What the strategy wants next; None when it is at its end."""
    try:
        return walk.send(candidate)
    except StopIteration:
        return None


def test_sub_networks_vary_in_width_and_depth_and_share_one_training() -> None:
    start = course(measured(80_000, 0.0), flash=20_000)
    start.blocks = 1
    walk = shared(start)
    tried = [next(walk), walk.send(measured(30_000, 0.0)), walk.send(measured(18_000, 0.05))]
    sizes = [steps[2]["options"] for steps in tried]
    assert [size["blocks_out"] for size in sizes] == [0, 1, 0]
    assert sizes[0]["width"] == sizes[1]["width"] > sizes[2]["width"]
    assert tried[0][1] == tried[1][1] == tried[2][1]
    assert tried[0][1]["options"]["blocks"] == 1
    with pytest.raises(StopIteration):
        walk.send(measured(18_000, 0.0))


@pytest.mark.parametrize("strategy", [thinned, taught, shortened, shared, weighed, sized])
def test_a_strategy_ends_however_it_goes(strategy: Any) -> None:
    walk = strategy(course(measured(80_000, 0.0), flash=20_000))
    tried, steps = [], next(walk)
    while steps is not None and len(tried) < 50:
        tried.append(str(steps))
        steps = answer(walk, measured(30_000, 0.0))
    assert len(set(tried)) == len(tried) <= 12


def test_nothing_is_trained_for_goals_that_the_original_misses_itself() -> None:
    goal = Goal(target="mcu", min_accuracy=0.99)
    assert course_for(goal, board("mcu", 20_000), [measured(80_000, 0.0)]) is None
