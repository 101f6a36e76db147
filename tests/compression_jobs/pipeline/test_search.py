"""The search on a network really trained on digits: what it publishes, what it refuses, and the reasons it gives."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline.candidate import Candidate, Progress, Result
from compression_jobs.pipeline.deciding import best_of
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.errors import Cancelled, Refused
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.ladder import FLOAT, LADDERS
from compression_jobs.pipeline.making import make
from compression_jobs.pipeline.search import search
from compression_jobs.pipeline.targets import TARGETS, Reserve, Target
from device_agent.core import selftest
from device_agent.runtimes.onnx import OnnxRuntime
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.nets import Net

INT8 = {"name": "quantize", "options": {"calibration": "mse"}}
PI = "raspberry-pi-4"
UNTRAINED = Effort(train_steps=0)


@pytest.fixture
def short_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates instead of seven."""
    monkeypatch.setitem(LADDERS, "onnxruntime", [[FLOAT], [FLOAT, INT8]])


@pytest.fixture(scope="module")
def found(
    digits: Digits, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Result], Path, list[Progress]]:
    out, told = tmp_path_factory.mktemp("found"), []
    goals = [Goal(target=slug, min_accuracy=0.9, max_drop=0.03) for slug in (PI, "raspberry-pi-zero-2-w")]
    results = search(goals, digits.model, digits.dataset, out=out, progress=told.append)
    return results, out, told


def figures(candidate: Candidate) -> dict[str, Any]:
    assert candidate.accuracy is not None
    return candidate.accuracy


def test_every_target_gets_a_small_model_that_is_nearly_as_good(found: Any) -> None:
    results, out, _ = found
    for slug, result in results.items():
        assert result.met, result.sentence
        float_bytes = result.candidates[0].bytes
        assert result.winner.bytes < float_bytes / 2.5
        assert figures(result.winner)["value"] > 0.93
        assert result.winner.drop["value"] <= 0.03
        assert (out / slug / "model.onnx").stat().st_size == result.winner.bytes
        assert result.winner.macs > 100_000
        assert result.winner.host_latency_us["p95"] >= result.winner.host_latency_us["p50"] > 0


def test_every_other_candidate_has_a_reason_and_figures_with_their_interval(found: Any) -> None:
    results, _, _ = found
    for result in results.values():
        assert [c.id for c in result.candidates if c.rejected is None] == [result.winner.id]
        for candidate in result.candidates:
            accuracy = figures(candidate)
            assert accuracy["low"] < accuracy["value"] <= accuracy["high"]
            assert (accuracy["n"], accuracy["split"]) == (200, "validation")
            assert candidate.drop["low"] <= candidate.drop["value"] <= candidate.drop["high"]
        assert any(candidate.on_front for candidate in result.candidates)


def test_only_the_winner_ever_meets_the_test_rows(found: Any) -> None:
    results, out, _ = found
    tested = {c.sha256[:32] for r in results.values() for c in r.candidates if c.test_accuracy}
    assert tested == {r.winner.sha256[:32] for r in results.values()}
    measured = [path.name for path in (out / "measured").glob("*-test.json")]
    assert len(measured) == len(tested) + 1  # and the original
    assert all(r.winner.test_accuracy["n"] == 250 for r in results.values())


def test_targets_of_one_runtime_share_artifacts_and_measurements(found: Any) -> None:
    results, out, _ = found
    one, other = (result.candidates for result in results.values())
    assert [c.path for c in one] == [c.path for c in other]
    distinct = {c.sha256 for c in one}
    assert len(list((out / "measured").glob("*-validation.json"))) == len(distinct) + 1


def test_progress_counts_up_to_the_end_and_hands_out_each_candidate(found: Any) -> None:
    results, _, told = found
    done = [each.done for each in told]
    assert done == sorted(done)
    assert done[-1] == told[-1].total
    seen = {(each.candidate["target"], each.candidate["id"]) for each in told if each.candidate}
    assert seen == {(slug, c.id) for slug, result in results.items() for c in result.candidates}
    assert json.loads(json.dumps([each.candidate for each in told]))


def test_the_published_self_test_passes_on_the_device_runtime_and_catches_another_model(found: Any) -> None:
    results, out, _ = found
    folder = out / PI
    signature = json.loads((folder / "signature.json").read_text())
    runtime = OnnxRuntime()
    runtime.load(str(folder / "model.onnx"), signature)
    with open(folder / "selftest.bin", "rb") as file:
        result = selftest.run(file, runtime)
    assert (result.passed, result.samples) == (True, 8), result.reason
    other = next(
        c for c in results[PI].candidates if c.sha256 != results[PI].winner.sha256 and "entropy" in c.id
    )
    runtime.load(other.path, signature)
    with open(folder / "selftest.bin", "rb") as file:
        assert not selftest.run(file, runtime).passed


def test_signature_and_lineage_say_what_it_is_and_where_it_comes_from(found: Any, digits: Digits) -> None:
    _, out, _ = found
    signature = json.loads((out / PI / "signature.json").read_text())
    assert signature["inputs"][0]["shape"] == [1, 1, 8, 8]
    assert signature["classes"] == [str(n) for n in range(10)]
    lineage = json.loads((out / PI / "lineage.json").read_text())
    assert lineage["steps"][1]["options"]["samples"] == 100
    assert set(lineage["packages"]) == {"numpy", "onnx", "onnxruntime"}
    assert lineage["measurements"]["test_accuracy"]["n"] == 250
    whole = json.loads((out / "candidates.json").read_text())
    assert whole[PI]["winner"] in {c["id"] for c in whole[PI]["candidates"]}


def test_the_same_seed_gives_the_same_bytes(digits: Digits, tmp_path: Path) -> None:
    steps = [FLOAT, {"name": "quantize", "options": {"calibration": "entropy", "samples": 20}}]
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        made = make(digits.model, digits.dataset, steps, "onnxruntime", tmp_path / name, seed)
        digests.append(made["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_a_cancelled_search_goes_on_where_it_stopped(
    digits: Digits, tmp_path: Path, short_ladder: None
) -> None:
    goals, told = [Goal(target=PI, min_accuracy=0.5)], []
    with pytest.raises(Cancelled):
        search(
            goals,
            digits.model,
            digits.dataset,
            out=tmp_path,
            progress=told.append,
            cancelled=lambda: any(each.candidate for each in told),
        )
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("facts.json")}
    assert len(finished) == 1
    result = search(goals, digits.model, digits.dataset, out=tmp_path)[PI]
    assert result.met
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


@pytest.mark.usefixtures("short_ladder")
class TestVerdicts:
    """What is said when a goal cannot be met."""

    def test_a_model_that_knows_nothing_is_not_published(self, digits: Digits, tmp_path: Path) -> None:
        goal = Goal(target=PI, min_accuracy=0.9, max_drop=0.5)
        result = search([goal], digits.shuffled_model, digits.dataset, out=tmp_path)[PI]
        assert (result.met, result.winner, result.binding) == (False, None, "min_accuracy")
        assert "90.0% asked" in result.sentence
        assert "The original itself is " in result.sentence
        assert not (tmp_path / PI).exists()

    def test_a_budget_that_binds_is_named_with_the_nearest_candidate(
        self, digits: Digits, tmp_path: Path
    ) -> None:
        results = self.with_budgets(digits, tmp_path, flash_bytes=10_000, ram_bytes=1 << 28)
        assert results.binding == "flash"
        nearest = min(results.candidates, key=lambda c: c.bytes)
        assert nearest.id in results.sentence
        assert "no candidate meets the goal" in results.sentence
        assert all(c.missed[0].startswith("flash:") and not c.fits for c in results.candidates)

    def test_impossible_is_said_only_from_a_bound(self, digits: Digits, tmp_path: Path) -> None:
        results = self.with_budgets(digits, tmp_path, flash_bytes=1 << 28, ram_bytes=50)
        assert results.binding == "ram"
        assert "impossible: input and output alone take 74 bytes of RAM" in results.sentence

    @staticmethod
    def with_budgets(digits: Digits, out: Path, flash_bytes: int, ram_bytes: int) -> Result:
        plain = TARGETS[PI].model_dump(exclude={"flash_bytes", "ram_bytes", "export_only", "subtraction"})
        tiny = Target.model_validate(
            plain
            | {"slug": "tiny", "flash_total_bytes": flash_bytes + 1, "ram_total_bytes": ram_bytes}
            | {"subtraction": [Reserve(what="loader", flash_bytes=1)]}
        )
        goals = [Goal(target="tiny", min_accuracy=0.9)]
        return search(goals, digits.model, digits.dataset, out=out, targets={"tiny": tiny}, effort=UNTRAINED)[
            "tiny"
        ]

    def test_a_goal_that_fails_on_the_test_rows_publishes_nothing(
        self, digits: Digits, tmp_path: Path
    ) -> None:
        arrays = dict(np.load(digits.dataset))
        test = arrays["split"] == "test"
        arrays["y"][test] = (arrays["y"][test] + 1) % 10
        np.savez(tmp_path / "data.npz", **arrays)
        goal = Goal(target=PI, min_accuracy=0.9)
        result = search([goal], digits.model, tmp_path / "data.npz", out=tmp_path / "out")[PI]
        assert (result.met, result.winner, result.binding) == (False, None, "min_accuracy")
        assert "goal fails on the test rows" in result.sentence
        assert not (tmp_path / "out" / PI).exists()

    def test_without_a_split_every_figure_carries_a_warning(self, digits: Digits, tmp_path: Path) -> None:
        arrays = dict(np.load(digits.dataset))
        np.savez(tmp_path / "data.npz", x=arrays["x"], y=arrays["y"])
        goal = Goal(target=PI, max_drop=0.01)
        result = search([goal], digits.model, tmp_path / "data.npz", out=tmp_path / "out")[PI]
        assert all("these rows may have been trained on" in c.notes[0] for c in result.candidates)
        notes = [note for c in result.candidates for note in c.notes]
        assert any("cannot show 1 point; about" in note for note in notes)
        assert result.met
        assert not result.shown

    def test_operators_without_int8_are_left_to_onnxruntime_and_refused_for_boards(
        self, tmp_path: Path
    ) -> None:
        net = Net(2, 6, 6).conv(2, 4).node("Relu").node("Sin").reshape(1, 64).dense(64, 3)
        net.graph().save(tmp_path / "net.onnx")
        rows = net.rows(200)
        np.savez(tmp_path / "data.npz", x=rows, y=np.arange(200) % 3)
        goals = [Goal(target=PI, max_drop=0.5), Goal(target="esp32-s3", max_drop=0.5)]
        results = search(goals, tmp_path / "net.onnx", tmp_path / "data.npz", out=tmp_path / "out")
        winner = results[PI].winner
        assert winner is not None
        assert any("left to onnxruntime: Sin" in note for note in winner.notes)
        board = results["esp32-s3"]
        assert board.winner is None
        assert any("Sin has no int8 form" in (candidate.rejected or "") for candidate in board.candidates)


@pytest.mark.parametrize(
    ("slugs", "reason"),
    [
        (["esp32", "toaster"], "toaster: no such target"),
        ([PI, PI], "two goals for one target"),
        ([], "there is no goal"),
    ],
)
def test_targets_that_cannot_work_are_refused_before_anything_runs(
    slugs: list[str], reason: str, digits: Digits, tmp_path: Path
) -> None:
    goals = [Goal(target=slug, min_accuracy=0.5) for slug in slugs]
    with pytest.raises(Refused, match=reason):
        search(goals, digits.model, digits.dataset, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none_is_refused(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"hello")
    with pytest.raises(Refused, match="not an ONNX model"):
        search([Goal(target=PI, max_drop=0.1)], tmp_path / "m.onnx", digits.dataset, out=tmp_path / "out")


def test_costs_within_a_percent_are_decided_by_accuracy() -> None:
    small = Candidate("small", PI, [], bytes=1000, accuracy={"value": 0.90})
    better = replace(small, id="better", bytes=1009, accuracy={"value": 0.95})
    larger = replace(small, id="larger", bytes=1100, accuracy={"value": 0.99})
    goal = Goal(target=PI, min_accuracy=0.5)
    assert best_of([small, better, larger], goal) is better
    accurate = Goal(target=PI, min_accuracy=0.5, objective="accuracy")
    assert best_of([small, better, larger], accurate) is larger
    hardly = replace(larger, id="hardly", bytes=900, accuracy={"value": 0.9899})
    assert best_of([hardly, larger], accurate) is larger
