"""The ready wake words of `pymicro-wakeword`: streaming int8 models that keep a state, and streams for them."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compression_jobs.pipeline.graph.foreign_tflite import OP, rewritten

NAMES = ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")
FRAME = (3, 40)  # of spectrogram, 10 ms apart


def wake_word(name: str) -> bytes:
    """The file as it is shipped; the test is skipped where the package is not installed."""
    found = importlib.util.find_spec("pymicro_wakeword")
    if found is None or found.origin is None:
        pytest.skip("pymicro-wakeword is not installed here")
    return (Path(found.origin).parent / "models" / f"{name}.tflite").read_bytes()


def before_the_sigmoid(content: bytes) -> bytes:
    """The file that ends in front of the sigmoid, which answers nearly the same to all that is no wake word."""

    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        codes = [code.builtinCode or code.deprecatedBuiltinCode for code in model.operatorCodes]
        end = next(i for i, each in enumerate(graph.operators) if codes[each.opcodeIndex] == OP.LOGISTIC)
        graph.outputs = [graph.operators[end].inputs[0]]
        graph.operators = graph.operators[:end]

    return rewritten(content, change)


def stream(count: int, seed: int = 0) -> np.ndarray:
    """Frames as a microphone gives them: mostly quiet, with bands that come and go."""
    chance = np.random.default_rng(seed)
    time, band = np.arange(count * FRAME[0])[:, None], np.arange(FRAME[1])
    loud = 90 * np.exp(-(((band - 20 - 15 * np.sin(time / 9)) / 6) ** 2)) * (np.sin(time / 7) > 0)
    frames = np.clip(-120 + loud + chance.normal(0, 15, loud.shape), -128, 127)
    return frames.round().astype(np.int8).reshape(count, *FRAME)
