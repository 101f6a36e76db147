"""Targets that run `.tflite`, and ready `.tflite` files on targets of every kind."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression_jobs.pipeline.__main__ import MET, REFUSED, main
from compression_jobs.pipeline.candidate import Result
from compression_jobs.pipeline.emit import tflite
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.goal import Goal
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.ladder import LADDERS
from compression_jobs.pipeline.recipe import parse_recipe
from compression_jobs.pipeline.run import run
from compression_jobs.pipeline.search import search
from device_agent.core import selftest
from device_agent.runtimes.litert import LiteRtRuntime
from device_agent.runtimes.onnx import open_session
from device_agent.runtimes.plan.twin import Plan
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.graph.tflm import RECORD
from tests.compression_jobs.pipeline.mlperf_tiny import ready
from tests.compression_jobs.pipeline.nets import quantized

pytest.importorskip("tflite_micro")

PI, PI_LITERT, CHIP = "raspberry-pi-4", "raspberry-pi-4-litert", "stm32f746"


@pytest.fixture(scope="module")
def found(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Result], Path]:
    """One int8 candidate for LiteRT and for TFLM."""
    with pytest.MonkeyPatch.context() as patch:
        for runtime in ("litert", "tflite-micro"):
            patch.setitem(LADDERS, runtime, LADDERS[runtime][:1])
        out = tmp_path_factory.mktemp("found")
        goals = [Goal(target=slug, max_drop=0.03) for slug in (PI_LITERT, CHIP)]
        return search(goals, digits.model, digits.dataset, out=out), out


def test_both_runtimes_get_the_same_small_file_measured_in_each(found: Any) -> None:
    results, out = found
    assert all(result.met for result in results.values()), results
    winners = [results[slug].winner for slug in (PI_LITERT, CHIP)]
    assert winners[0].sha256 == winners[1].sha256
    assert {winner.format for winner in winners} == {"tflite"}
    assert all(abs(winner.accuracy["value"] - 0.95) < 0.05 for winner in winners)
    published = sorted(path.name for path in (out / CHIP).iterdir())
    assert published == [
        "lineage.json",
        "model.tflite",
        "selftest.bin",
        "signature.json",
        "transport.bin",
    ]


def test_ram_is_what_tflm_recorded(found: Any) -> None:
    results, out = found
    command = [sys.executable, "-c", RECORD, out / CHIP / "model.tflite"]
    record = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    total = re.search(r"Arena allocation total (\d+)", record)
    assert total
    assert results[CHIP].winner.peak_ram_bytes == int(total[1])
    assert any("TensorFlow Lite Micro recorded" in note for note in results[CHIP].winner.notes)


def test_the_self_test_passes_in_the_agents_own_litert(found: Any) -> None:
    _, out = found
    for slug in (PI_LITERT, CHIP):
        runtime = LiteRtRuntime()
        runtime.load(
            str(out / slug / "model.tflite"), json.loads((out / slug / "signature.json").read_text())
        )
        with open(out / slug / "selftest.bin", "rb") as file:
            result = selftest.run(file, runtime)
        assert (result.passed, result.samples) == (True, 8), result.reason


def test_float_recipes_are_refused_where_only_int8_runs(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="tflite-micro runs int8 models only; add a quantize step"):
        run(parse_recipe(["canonicalise"]), digits.model, digits.dataset, CHIP, out=tmp_path)


def test_a_ready_file_reaches_every_runtime(found: Any, digits: Digits, tmp_path: Path) -> None:
    _, made = found
    model = made / CHIP / "model.tflite"
    goals = [Goal(target=slug, max_drop=0.02) for slug in (PI, PI_LITERT, CHIP, "rp2040")]
    results = search(goals, model, digits.dataset, out=tmp_path)
    assert all(result.met for result in results.values()), results
    assert {result.winner.agreement > 0.97 for result in results.values()} == {True}
    assert (tmp_path / CHIP / "model.tflite").read_bytes() == model.read_bytes()
    assert (tmp_path / PI / "model.onnx").exists()
    assert (tmp_path / "rp2040" / "model.plan").exists()


def test_a_ready_file_takes_no_passes(found: Any, digits: Digits, tmp_path: Path) -> None:
    model = found[1] / CHIP / "model.tflite"
    with pytest.raises(Refused, match=r"a ready \.tflite is deployed as it is; quantize start"):
        run(parse_recipe(["quantize"]), model, digits.dataset, CHIP, out=tmp_path)


class TestConvert:
    """`convert MODEL.tflite --to FORM --out FILE`."""

    def test_to_onnx(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        graph, rows = quantized("separable", "per_channel")
        assert self.convert(tflite.emit(graph), "onnx", tmp_path, tmp_path / "m.onnx") == MET
        session = open_session(str(tmp_path / "m.onnx"))
        answered = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
        steps = (answered - quant_reference.run_float(graph, rows)) / graph.tensors[graph.outputs[0]].scale
        assert np.abs(steps).max() < 2.5
        assert re.search(r"m\.onnx: \d+ bytes; its activations take 704", capsys.readouterr().out)

    def test_to_c_as_a_folder_and_as_a_zip(self, tmp_path: Path) -> None:
        content = tflite.emit(quantized("perceptron", "per_channel")[0])
        assert self.convert(content, "c", tmp_path, tmp_path / "c") == MET
        names = {"CMakeLists.txt", "model.c", "model.h", "test_main.c", "test_vector.h"}
        assert {path.name for path in (tmp_path / "c").iterdir()} == names
        assert self.convert(content, "c", tmp_path, tmp_path / "c.zip") == MET
        assert (tmp_path / "c.zip").read_bytes()[:2] == b"PK"

    def test_to_plan_that_the_twin_runs(self, tmp_path: Path) -> None:
        content, rows = ready("ds_cnn")
        assert self.convert(content, "plan", tmp_path, tmp_path / "m.plan") == MET
        plan, graph = Plan(), from_tflite(content)
        plan.load(str(tmp_path / "m.plan"))
        expected = quant_reference.run(graph, {graph.inputs[0]: rows})[graph.outputs[0]]
        assert np.array_equal(plan.run_rows([rows.reshape(len(rows), -1)])[0], expected)

    def test_to_tflite_writes_the_same_graph_in_this_products_own_words(self, tmp_path: Path) -> None:
        content = tflite.emit(quantized("encoder", "per_channel")[0])
        assert self.convert(content, "tflite", tmp_path, tmp_path / "again.tflite") == MET
        assert tflite.emit(from_tflite((tmp_path / "again.tflite").read_bytes())) == content

    def test_what_cannot_be_converted_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.convert(b"TFL3TFL3" * 9, "onnx", tmp_path, tmp_path / "m.onnx") == REFUSED
        assert "the .tflite file is damaged" in capsys.readouterr().err
        assert self.convert(b"", "c", tmp_path, tmp_path / "m.tflite") == REFUSED
        assert "is a file; --out names the folder to write" in capsys.readouterr().err
        assert self.convert(b"kept", "plan", tmp_path, tmp_path / "m.tflite") == REFUSED
        assert "m.tflite would be overwritten" in capsys.readouterr().err

    @staticmethod
    def convert(content: bytes, form: str, folder: Path, out: Path) -> int:
        (folder / "m.tflite").write_bytes(content)
        return main(["convert", str(folder / "m.tflite"), "--to", form, "--out", str(out)])
