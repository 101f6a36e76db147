"""Measuring: in a child, once for each question, and without harm from files that crash or never end."""

import sys
from pathlib import Path

import numpy as np
import pytest

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.errors import PipelineError
from compression_jobs.pipeline.measure import Gauge
from compression_jobs.pipeline.resident import ResidentSet
from tests.compression_jobs.pipeline.conftest import Digits


@pytest.fixture
def gauge(digits: Digits, tmp_path: Path) -> Gauge:
    return Gauge(digits.dataset, Dataset.load(digits.dataset).sha256, tmp_path / "measured")


def test_a_question_is_measured_once(gauge: Gauge, digits: Digits, tmp_path: Path) -> None:
    first = gauge.measure(digits.model, "a" * 64, "onnxruntime", "validation")
    assert first.outputs.shape == (200, 10)
    assert first.peak_ram_bytes > 100_000
    gone = tmp_path / "gone.onnx"
    again = gauge.measure(gone, "a" * 64, "onnxruntime", "validation")
    assert np.array_equal(again.outputs, first.outputs)
    assert again.host_latency_us == first.host_latency_us
    with pytest.raises(PipelineError):
        gauge.measure(gone, "a" * 64, "onnxruntime", "test")


def test_scores_are_those_of_the_model_row_by_row(gauge: Gauge, digits: Digits) -> None:
    from device_agent.runtimes.onnx import open_session

    rows, labels = Dataset.load(digits.dataset).rows("test")
    measured = gauge.measure(digits.model, "b" * 64, "onnxruntime", "test").outputs
    session = open_session(str(digits.model))
    assert np.array_equal(measured[:5], [session.run(None, {"x": row[None]})[0][0] for row in rows[:5]])
    assert (measured.argmax(1) == labels).mean() > 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets an earlier peak")
def test_memory_that_was_held_in_between_is_seen() -> None:
    memory = ResidentSet()
    held = np.ones(30_000_000 // 8)
    del held
    assert 25_000_000 < memory.increase() < 60_000_000
