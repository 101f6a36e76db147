"""The front doors without a server: exit codes, files, progress."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from compression_jobs.pipeline.__main__ import MET, NOT_MET, REFUSED, main
from compression_jobs.pipeline.ladder import FLOAT, LADDERS
from tests.compression_jobs.pipeline.conftest import Digits
from tests.compression_jobs.pipeline.nets import Net

PI = "raspberry-pi-4"


@pytest.fixture(autouse=True)
def short_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """One int8 candidate."""
    monkeypatch.setitem(LADDERS, "onnxruntime", [[FLOAT, {"name": "quantize"}]])


def inputs(digits: Digits, out: Path) -> list[str]:
    return ["--model", str(digits.model), "--data", str(digits.dataset), "--out", str(out)]


def test_a_search_that_meets_its_goal(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--target", PI, "--max-drop", "0.05", *inputs(digits, tmp_path)]) == MET
    told = capsys.readouterr()
    assert f"{PI}: canonicalise-quantize" in told.out
    assert "over the air" in told.out
    assert "checking the model" in told.err
    assert json.loads((tmp_path / "candidates.json").read_text())[PI]["met"]
    published = sorted(path.name for path in (tmp_path / PI).iterdir())
    assert published == ["lineage.json", "model.onnx", "selftest.bin", "signature.json", "transport.bin"]


def test_a_goal_that_is_not_met_is_exit_code_3_and_leaves_the_best_effort_alone(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / PI).mkdir()
    (tmp_path / PI / "model.onnx").write_text("of an earlier run")
    assert main(["search", "--target", PI, "--min-accuracy", "1.0", *inputs(digits, tmp_path)]) == NOT_MET
    told = capsys.readouterr().out
    assert "min_accuracy binds" in told
    assert f"the best effort is in {tmp_path / 'nearest' / PI}" in told
    assert not (tmp_path / PI).exists()
    lineage = json.loads((tmp_path / "nearest" / PI / "lineage.json").read_text())
    assert lineage["met"] is False
    assert "accuracy" in lineage["missed"][0]
    assert (tmp_path / "nearest" / PI / "model.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--target", PI], "nothing says what must survive"),
        (["--target", PI, "--max-drop", "7"], "less than or equal to 1"),
        (["--target", PI, "--max-drop", "0.1", "--out", "/dev/null"], "--out /dev/null cannot be a folder"),
    ],
)
def test_what_cannot_work_is_exit_code_2_and_one_line(
    arguments: list[str], reason: str, digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", *inputs(digits, tmp_path), *arguments]) == REFUSED
    assert reason in capsys.readouterr().err


def test_a_recipe_from_a_file_on_a_model_with_its_weights_beside_it(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(digits.model)
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    (tmp_path / "r.yaml").write_text(
        "- canonicalise\n- name: quantize\n  options: {granularity: per_tensor}\n"
    )
    arguments = [
        "--model",
        str(tmp_path / "m.onnx"),
        "--data",
        str(digits.dataset),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(["run", "--recipe", str(tmp_path / "r.yaml"), "--target", PI, *arguments]) == MET
    assert "per_tensor" in capsys.readouterr().out
    assert (tmp_path / "o" / PI / "model.onnx").exists()


def test_inspect_prints_json_in_a_process_of_its_own(digits: Digits) -> None:
    arguments = ["inspect", str(digits.model), "--data", str(digits.dataset), "--target", "esp32-s3"]
    command = [sys.executable, "-m", "compression_jobs.pipeline", *arguments]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert shown["model"]["inputs"][0]["name"] == "x"
    assert shown["dataset"]["rows"]["validation"] == 200
    assert shown["target"]["ram_bytes"] < shown["target"]["ram_total_bytes"]
    assert shown["suits"]["runs"]
    assert 6_000 < shown["suits"]["int8"]["bytes"] < 20_000
    assert shown["suits"]["int8"]["too_large"] == []


def test_inspect_names_all_that_a_target_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net(1, 6, 6).conv(1, 4).node("Sin").node("Cos").reshape(1, 64).dense(64, 3)
    net.graph().save(tmp_path / "m.onnx")
    assert main(["inspect", str(tmp_path / "m.onnx"), "--target", "esp32-s3"]) == REFUSED
    told = capsys.readouterr()
    assert not json.loads(told.out)["suits"]["runs"]
    assert "esp32-s3 cannot run it" in told.err
    assert "Sin" in told.err
    assert "Cos" in told.err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing.onnx")]) == REFUSED
    assert "nothing.onnx: no such file" in capsys.readouterr().err
