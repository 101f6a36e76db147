"""Runs models in onnxruntime on a few rows, and says whether two models answer alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.graph import FREE, Graph, Port, Shape

Array = NDArray[Any]

# onnxruntime's exceptions have no base class of their own.
RUNTIME_ERRORS = (EPFail, Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException,
                  RuntimeError, ValueError)  # fmt: skip
ROWS_COMPARED = 8
SEED = 7
# Folding a scale into weights rounds once more; real mistakes are orders of magnitude larger.
RELATIVE, ABSOLUTE = 2e-4, 1e-5


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """An onnxruntime session on one CPU thread, the same result each time; raises Refused."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise Refused(
            f"onnxruntime cannot load the model: {_first_line(error)}",
            remedy="export it again, with opset 17",
        ) from error


def run_once(session: onnxruntime.InferenceSession, feed: dict[str, Array]) -> list[Array]:
    """The outputs for one feed; raises Refused when onnxruntime fails or an output is no tensor."""
    try:
        return [np.asarray(output) for output in session.run(None, feed)]
    except RUNTIME_ERRORS as error:
        raise Refused(
            f"onnxruntime cannot run the model: {_first_line(error)}",
            remedy="check that it runs on one row of the data in your own environment",
        ) from error


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition("Status Message: ")[2].removeprefix("[ONNXRuntimeError] : ")[:400]


def random_feed(ports: list[Port]) -> dict[str, Array]:
    """Seeded small values for inputs of static shape."""
    chance = np.random.default_rng(SEED)
    return {port.name: _random(chance, port) for port in ports}


def _random(chance: np.random.Generator, port: Port) -> Array:
    if port.dtype.startswith(("float", "double")):
        return chance.standard_normal(port.shape).astype(port.dtype)
    if port.dtype == "bool":
        return chance.integers(0, 2, port.shape).astype(bool)
    return np.zeros(port.shape, port.dtype)  # an index of any table


@dataclass(frozen=True)
class Reference:
    """What the original model answers to single rows: the yardstick of every rewrite."""

    rows: Array
    answers: list[list[Array]]

    @classmethod
    def of(cls, graph: Graph, rows: Array) -> "Reference":
        """Run the original, whose batch may be free or fixed, on each row."""
        session, port = open_session(graph.to_bytes()), graph.inputs[0]
        batch = 1 if not port.shape or port.shape[0] == FREE else port.shape[0]
        answers = [_answer(session, port.name, np.repeat(row[None], batch, axis=0), batch) for row in rows]
        broken = [
            value.name
            for value, output in zip(graph.outputs, answers[0], strict=True)
            if output.dtype.kind == "f" and not np.isfinite(output).all()
        ]
        if broken:
            raise Refused(
                f"the model answers NaN or infinity at {', '.join(broken)}",
                remedy="check its weights and the data",
            )
        return cls(rows, answers)

    def difference(self, graph: Graph) -> str | None:
        """What is wrong with a rewritten model, in words; None when it answers alike."""
        try:
            session, name = open_session(graph.to_bytes()), graph.inputs[0].name
            answers = [_answer(session, name, row[None], 1) for row in self.rows]
        except Refused as error:
            return error.message
        for expected, actual in zip(self.answers, answers, strict=True):
            for port, left, right in zip(graph.outputs, expected, actual, strict=True):
                if not alike(left, right):
                    return f"output {port.name} changes"
        return None

    def observed(self, graph: Graph, names: list[str]) -> list[ValueInfoProto]:
        """Type and shape of tensors of a static model, as far as they are the same for every row."""
        watched = graph.copy()
        answered = [value.name for value in watched.model.graph.output]
        watched.model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in answered)
        session, port = open_session(watched.to_bytes()), graph.inputs[0]
        runs = [run_once(session, {port.name: row[None]}) for row in self.rows]
        seen = zip([output.name for output in session.get_outputs()], *runs, strict=True)
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(first.dtype), first.shape)
            for name, first, *others in seen
            if name in names and all(other.shape == first.shape for other in others)
        ]

    def output_shapes(self) -> list[Shape]:
        """The shapes of the outputs for a batch of one."""
        return [output.shape for output in self.answers[0]]


def _answer(session: onnxruntime.InferenceSession, name: str, feed: Array, batch: int) -> list[Array]:
    outputs = run_once(session, {name: feed})
    return [output[:1] if batch > 1 and output.shape[:1] == (batch,) else output for output in outputs]


def alike(expected: Array, actual: Array) -> bool:
    """Whether both are the same within the rounding that a rewrite may add."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, actual))
    scale = float(np.max(np.abs(expected), initial=0.0))
    return bool(np.allclose(actual, expected, rtol=0, atol=ABSOLUTE + RELATIVE * scale))
