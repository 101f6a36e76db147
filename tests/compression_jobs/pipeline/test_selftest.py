"""Which rows become a self-test, and that it stays true where another processor rounds differently."""

from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline import selftest
from compression_jobs.pipeline.measure_onnxruntime import samples
from device_agent.core import selftest as wire
from tests.compression_jobs.pipeline.conftest import Digits


def header_of(path: Path) -> wire.Header:
    with open(path, "rb") as file:
        return wire.SelfTest(file).header


def written(digits: Digits, folder: Path, output: dict[str, float] | None, scores: np.ndarray) -> wire.Header:
    np.save(folder / "scores.npy", scores)
    selftest.write(digits.model, digits.dataset, folder / "scores.npy", output, folder / "selftest.bin")
    return header_of(folder / "selftest.bin")


@pytest.fixture(scope="module")
def scores(digits: Digits) -> np.ndarray:
    arrays = np.load(digits.dataset)
    rows = arrays["x"][arrays["split"] == "validation"]
    return np.concatenate([outputs[0] for _, outputs in samples(digits.model, rows)])


def test_the_closest_calls_above_twice_the_tolerance_are_taken() -> None:
    margins = np.array([0.1, 5.0, 0.3, 0.5, 0.2, 9.0, 0.4])
    two = np.stack([margins, np.zeros(7)], axis=1)
    chosen, decided = selftest._choose(two, 0.25, 3)
    assert (list(chosen), decided) == ([2, 6, 3], True)


def test_classes_are_not_compared_where_too_few_rows_are_clear() -> None:
    chosen, decided = selftest._choose(np.zeros((20, 3)), 0.1, 8)
    assert (len(chosen), decided) == (8, False)


def test_a_float_model_is_compared_with_a_tolerance_of_its_scores(
    digits: Digits, scores: np.ndarray, tmp_path: Path
) -> None:
    header = written(digits, tmp_path, None, scores)
    assert (header.samples, header.mode, header.argmax) == (8, "atol", True)
    assert header.limits[0] == pytest.approx(1e-4 * np.abs(scores).max())


def test_an_int8_model_is_compared_in_steps_of_its_output(
    digits: Digits, scores: np.ndarray, tmp_path: Path
) -> None:
    header = written(digits, tmp_path, {"scale": 0.25, "zero_point": 0}, scores)
    assert (header.mode, header.argmax) == ("lsb", True)
    assert header.limits[0] == pytest.approx(0.5, rel=0.01)
