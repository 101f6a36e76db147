"""The QuantGraph that grows from the operators of a `.tflite`: names, edges, constants."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.graph.quant_arithmetic import QMAX, QMIN
from compression_jobs.pipeline.graph.tflite_reading import Node, Stored, TfliteModel

ACTIVATIONS: dict[int, q.Activation] = {
    schema.ActivationFunctionType.NONE: "none",
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
}
EDGE_KINDS = ("QUANTIZE", "DEQUANTIZE")
# They work on elements, rows or bytes: a tensor without a batch in front is one with a batch of 1 to them.
WITHOUT_BATCH = frozenset(
    [
        "RESHAPE",
        "SQUEEZE",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "ADD",
        "SUB",
        "MUL",
        "SOFTMAX",
        "RELU",
        "RELU6",
        "LOGISTIC",
        "TANH",
        "LEAKY_RELU",
        "HARD_SWISH",
        "QUANTIZE",
    ]
)
OUTER_DTYPES = ("float32", "uint8")


class UnsupportedError(Exception):
    """The operator cannot be imported; the text says why."""


class PoisonedError(Exception):
    """What the operator reads was refused already."""


@dataclass
class Variables:
    """The variables of the file: which tensors stand for them, what was read from and assigned to each so far."""

    handles: dict[int, str] = field(default_factory=dict)
    read: dict[str, q.Tensor] = field(default_factory=dict)
    assigned: dict[str, q.Tensor] = field(default_factory=dict)


class Importer:
    """The growing QuantGraph beside the file that it is made from."""

    def __init__(self, model: TfliteModel, nodes: list[Node]) -> None:
        self.model, self.nodes = model, nodes
        self.graph = q.QuantGraph({}, [], [], [])
        self.names = _unique_names(model)
        self.readers = Counter(index for node in nodes for index in node.inputs if index >= 0)
        self.readers.update(model.outputs)
        self.pads: dict[int, tuple[int, q.Padding, int]] = {}  # result of a pad not written yet -> where from
        self.variables = Variables()
        self.broken: set[int] = set()  # results of operators that were refused
        self._edges: set[str] = set()  # labels of quantize and dequantize at the edges
        self._outer: dict[int, int] = {}  # output of the file -> the int8 tensor that it comes from

    # Edges

    def open_edges(self) -> list[str]:
        """Define the inputs; what is not int8 must be quantised at once. Returns the problems."""
        problems = []
        for index in self.model.inputs:
            inner = self._inner_of_input(index)
            if inner is None:
                outer = self.model.tensors[index]
                problems.append(f"input {self.names[index]} is {outer.dtype} and is not quantised to int8")
                self.broken.add(index)
                continue
            self.names[inner] = self.names[index]
            try:
                if len(self.model.tensors[inner].shape) > 1:
                    self._refuse_batch(inner)
                self.graph.inputs.append(self.define(inner).name)
            except UnsupportedError as reason:
                problems.append(f"input {self.names[index]}: {reason}")
                self.broken.add(inner)
        for index in self.model.outputs:
            self._find_inner_output(index)
        return problems

    def inner_nodes(self) -> list[Node]:
        """The operators between the edges."""
        return [node for node in self.nodes if node.label not in self._edges]

    def close_edges(self) -> list[str]:
        """Name the outputs. Returns the problems."""
        problems = []
        for index in self.model.outputs:
            inner = self._outer.get(index, index)
            problems += self._padded_output(inner)
            name = self.names[inner]
            if name in self.graph.outputs or name in self.graph.inputs or name in self._states():
                problems.append(f"output {name} is an input, a variable or another output, too")
            elif name in self.graph.tensors:
                self.graph.outputs.append(name)
            elif inner not in self.broken:
                problems.append(
                    f"output {self.names[index]} is {self.model.tensors[index].dtype} and not int8"
                )
        return problems

    def _padded_output(self, index: int) -> list[str]:
        """Write the pad that an output was waiting for. Returns the problems."""
        try:
            if index in self.pads:
                self.tensor(index)
        except UnsupportedError as reason:
            self.broken.add(index)
            return [str(reason)]
        except PoisonedError:
            self.broken.add(index)
        return []

    def _states(self) -> set[str]:
        return {tensor.name for tensor in self.variables.read.values()}

    def _inner_of_input(self, index: int) -> int | None:
        if self.model.tensors[index].dtype == "int8":
            return index
        readers = [node for node in self.nodes if index in node.inputs]
        if (
            len(readers) != 1
            or readers[0].kind != "QUANTIZE"
            or self.model.tensors[index].dtype not in OUTER_DTYPES
        ):
            return None
        self._edges.add(readers[0].label)
        return readers[0].outputs[0]

    def _find_inner_output(self, index: int) -> None:
        maker = next((node for node in self.nodes if index in node.outputs), None)
        if (
            maker is None
            or self.model.tensors[index].dtype not in OUTER_DTYPES
            or maker.kind not in EDGE_KINDS
        ):
            return
        self._edges.add(maker.label)
        self._outer[index] = maker.inputs[0]
        self.names[maker.inputs[0]] = self.names[index]

    def go_on_behind(self, node: Node) -> None:
        """Pretend that a refused operator is there, so that those behind it are looked at, too."""
        self.broken.update(node.outputs)
        for index in node.outputs:
            if self.names[index] not in self.graph.tensors:
                with contextlib.suppress(UnsupportedError):
                    self.define(index)

    # Tensors

    def stored(self, node: Node, position: int) -> Stored | None:
        """The file's tensor that the operator reads there, if any."""
        if position >= len(node.inputs) or node.inputs[position] < 0:
            return None
        return self.model.tensors[node.inputs[position]]

    def define(self, index: int) -> q.Tensor:
        """A new activation of the QuantGraph."""
        stored, name = self.model.tensors[index], self.names[index]
        shape = stored.shape if stored.shape[:1] == (1,) else (1, *stored.shape)
        tensor = q.Tensor(name, shape, *_scale_of(stored))
        if name in self.graph.tensors:
            raise UnsupportedError(f"{name} is written twice")
        self.graph.tensors[name] = tensor
        return tensor

    def refuse_batches(self, node: Node) -> None:
        """Raise for an operator that counts axes from a batch which is not there, or not 1."""
        for index in (*node.inputs, *node.outputs) if node.kind not in WITHOUT_BATCH else ():
            if index >= 0 and self.model.tensors[index].dtype == "int8":
                self._refuse_batch(index)

    def _refuse_batch(self, index: int) -> None:
        stored = self.model.tensors[index]
        if stored.values is None and stored.shape[:1] != (1,):
            raise UnsupportedError(
                f"{stored.name or 'a tensor'} has shape {list(stored.shape)}; the batch must be 1"
            )

    def source(self, node: Node, position: int = 0) -> q.Tensor:
        """The activation that an operator reads."""
        if self.stored(node, position) is None:
            raise UnsupportedError(f"its input {position} is missing")
        return self.tensor(node.inputs[position])

    def tensor(self, index: int) -> q.Tensor:
        """An activation that is there already; a pad that was put off is written now."""
        if index in self.pads:
            self._write_pad(index)
        name = self.names[index]
        if name not in self.graph.tensors:
            if index in self.broken:
                raise PoisonedError
            if self.model.tensors[index].values is not None:
                raise UnsupportedError(f"{name} is a constant, and only weights may be")
            raise UnsupportedError(f"{name} is not an int8 result of an earlier operator")
        return self.graph.tensors[name]

    def target(self, node: Node) -> q.Tensor:
        """The activation that an operator writes."""
        if len(node.outputs) != 1:
            raise UnsupportedError(f"it has {len(node.outputs)} results")
        return self.define(node.outputs[0])

    def between(self, like: q.Tensor, shape: tuple[int, ...], what: str) -> q.Tensor:
        """A new activation that the file does not have, at the scale of another."""
        made = q.Tensor(f"{like.name}/{what}", shape, like.scale, like.zero_point)
        if made.name in self.graph.tensors:
            raise UnsupportedError(f"{made.name} is written twice")
        self.graph.tensors[made.name] = made
        return made

    def add(self, op: q.Op) -> None:
        """Append an operator."""
        self.graph.ops.append(op)

    def constant(self, node: Node, position: int, rank: int) -> q.Tensor:
        """A constant that an operator reads as if it were an activation, with sizes of 1 in front up to `rank`."""
        stored = self.stored(node, position)
        if stored is None or stored.values is None:
            raise UnsupportedError(f"its input {position} is no constant")
        shape = (1,) * (rank - len(stored.shape)) + stored.shape
        name = f"{node.label}/constant {position}"
        tensor = q.Tensor(name, shape, *_scale_of(stored))
        self.graph.tensors[name] = tensor
        self.add(q.Constant(name, (), name, stored.values.reshape(shape)))
        return tensor

    def numbers(self, node: Node, position: int) -> list[int]:
        """A constant of whole numbers."""
        stored = self.stored(node, position)
        if stored is None or stored.values is None or stored.dtype != "int32":
            raise UnsupportedError(f"its input {position} is computed; only a constant can be imported")
        return [int(value) for value in stored.values.ravel()]

    # Pieces that several operators share

    def activation(self, options: Any) -> q.Activation:
        """The activation fused into an operator."""
        code = options.FusedActivationFunction() if options is not None else 0
        if code not in ACTIVATIONS:
            raise UnsupportedError("only relu and relu6 can be fused")
        return ACTIVATIONS[code]

    def clamped(self, node: Node, write: Any) -> None:
        """An operator that cannot fuse its activation, and the activation behind it; `write` takes the target."""
        activation, target = self.activation(node.options), self.target(node)
        if activation == "none":
            write(target)
            return
        before = self.between(target, target.shape, "before")
        write(before)
        self.add(q.Clamp(f"{node.label}/{activation}", (before.name,), target.name, activation))

    def weights(self, node: Node, axis: int) -> q.Weights:
        """Constant weights and bias; a bias that is left out is zero."""
        stored, bias = self.stored(node, 1), self.stored(node, 2)
        if stored is None or stored.values is None or stored.dtype != "int8":
            raise UnsupportedError("its weights are not dense, constant int8")
        if not stored.scales.size or np.any(stored.zero_points != 0) or not np.all(_usable(stored.scales)):
            raise UnsupportedError(
                "its weights are not symmetric: their zero points must be 0, their scales positive"
            )
        channels = stored.shape[axis] if len(stored.shape) > axis else 0
        if stored.scales.size > 1 and (stored.axis != axis or stored.scales.size != channels):
            raise UnsupportedError("the scales of its weights are not those of its output channels")
        if bias is None:
            return q.Weights(stored.values, stored.scales, np.zeros(channels, np.int32))
        if bias.values is None or bias.dtype != "int32" or bias.values.size != channels:
            raise UnsupportedError(f"its bias is not {channels} constant int32 numbers")
        return q.Weights(stored.values, stored.scales, bias.values.ravel())

    def window_source(self, node: Node, fill: int | None) -> tuple[q.Tensor, q.Padding | None]:
        """What a window slides over, and the padding of a pad in front that it can take over.

        `fill` is the stored value that padding has there; None is the zero point.
        """
        index = node.inputs[0]
        if (
            index not in self.pads
            or self.readers[index] != 1
            or node.options.Padding() != schema.Padding.VALID
        ):
            return self.source(node), None
        origin, padding, value = self.pads[index]
        source = self.tensor(origin)
        if value != (source.zero_point if fill is None else fill):
            return self.source(node), None
        del self.pads[index]
        return source, padding

    def _write_pad(self, index: int) -> None:
        origin, padding, value = self.pads.pop(index)
        source, target = self.tensor(origin), self.define(index)
        if value != source.zero_point:
            raise UnsupportedError(f"{target.name} is padded with something else than zeros")
        self.add(q.Pad(target.name, (source.name,), target.name, padding))


def _usable(scales: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.isfinite(scales) & (scales > 0)


def _scale_of(stored: Stored) -> tuple[float, int]:
    if stored.dtype != "int8":
        raise UnsupportedError(f"{stored.name or 'a tensor'} is {stored.dtype}, not int8")
    if stored.scales.size != 1 or not _usable(stored.scales)[0] or not QMIN <= stored.zero_points[0] <= QMAX:
        raise UnsupportedError(f"{stored.name or 'a tensor'} has no usable scale")
    if min(stored.shape, default=1) < 1:
        raise UnsupportedError(f"{stored.name or 'a tensor'} has shape {list(stored.shape)} and no elements")
    return float(stored.scales[0]), int(stored.zero_points[0])


def _unique_names(model: TfliteModel) -> list[str]:
    """A name for each tensor; those of the edges are kept first."""
    wanted = {index: model.tensors[index].name for index in range(len(model.tensors))}
    names: dict[int, str] = {}
    for index in [*model.inputs, *model.outputs, *wanted]:
        taken = set(names.values())
        if index not in names:
            name = wanted[index]
            names[index] = name if name and name not in taken else f"{name}#{index}"
    return [names[index] for index in wanted]
