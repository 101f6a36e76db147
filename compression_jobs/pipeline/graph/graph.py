"""A thin view of an ONNX model: nodes, weights, shapes and who feeds whom, with a few safe edits."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

FREE = -1
ABOUT_VALUES = ("_values", "shapes", "dtypes")

Array = NDArray[Any]
Shape = tuple[int, ...]


class Port(NamedTuple):
    """An input or output of the model; a free dimension of `shape` is -1."""

    name: str
    dtype: str
    shape: Shape


class Graph:
    """An ONNX model that answers questions about itself.

    `model` is the only truth. Everything else is derived from it and cached; the editing methods forget
    the cache, and code that changes `model` by hand calls `changed()`. `notes` tells a person what could not
    be done to it; `ranges` holds the interval of each activation that quantization-aware training learned.
    """

    def __init__(self, model: onnx.ModelProto, notes: Iterable[str] = ()) -> None:
        self.model = model
        self.notes = list(notes)
        self.ranges: dict[str, tuple[float, float]] = {}

    def changed(self) -> None:
        """Forget everything derived from the model."""
        self._forget("initializers")
        self._nodes_changed()

    def _nodes_changed(self) -> None:
        self._forget("producers", "consumers", "_names", *ABOUT_VALUES)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    @property
    def nodes(self) -> list[NodeProto]:
        """The operators in the order they run."""
        return list(self.model.graph.node)

    @cached_property
    def initializers(self) -> dict[str, Array]:
        """The constant tensors by name, read-only."""
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    @property
    def inputs(self) -> list[Port]:
        """What the caller must feed; old models list their weights as inputs too, those are left out."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        return [port_of(value) for value in self.model.graph.input if value.name not in constants]

    @property
    def outputs(self) -> list[Port]:
        """What the model answers, with shapes as far as they can be inferred."""
        ports = [port_of(value) for value in self.model.graph.output]
        return [self._values.get(port.name, port) for port in ports]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The static shape of every tensor; tensors with a free dimension are left out."""
        return {name: port.shape for name, port in self._values.items() if FREE not in port.shape}

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """The element type of every tensor whose type is known, in NumPy's words."""
        return {name: port.dtype for name, port in self._values.items()}

    @cached_property
    def _values(self) -> dict[str, Port]:
        inferred = shape_inference.infer_shapes(self.model, data_prop=True).graph
        known = [*inferred.value_info, *inferred.input, *inferred.output]
        ports = {value.name: port_of(value) for value in known if value.type.tensor_type.HasField("shape")}
        for tensor in self.model.graph.initializer:
            ports[tensor.name] = Port(tensor.name, dtype_name(tensor.data_type), tuple(tensor.dims))
        return ports

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that makes each tensor; inputs and constants have none."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor, in order; a tensor that only leaves the model has none."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return readers

    @property
    def output_names(self) -> set[str]:
        """The names of the model's outputs."""
        return {value.name for value in self.model.graph.output}

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        versions = [entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")]
        return int(versions[0]) if versions else 0

    def used_once(self, name: str) -> bool:
        """Whether exactly one node reads the tensor and it does not leave the model."""
        return name not in self.output_names and len(self.consumers.get(name, [])) == 1

    def constant(self, node: NodeProto, position: int) -> Array | None:
        """The constant at an input position of the node; None when absent or computed."""
        if position >= len(node.input):
            return None
        return self.initializers.get(node.input[position])

    # Edits

    def fresh_name(self, base: str) -> str:
        """A tensor or node name like `base` that nothing in the model has yet."""
        name, number = base, 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    @cached_property
    def _names(self) -> set[str]:
        graph = self.model.graph
        names = {value.name for value in [*graph.input, *graph.output, *graph.initializer]}
        for node in graph.node:
            names.update((node.name, *node.input, *node.output))
        return names

    def set_initializer(self, name: str, array: Array) -> None:
        """Add a constant, or replace the one of that name."""
        self._store(name, array)
        self._forget(*ABOUT_VALUES)

    def add_initializer(self, base: str, array: Array) -> str:
        """Add a constant under a fresh name like `base`, and return that name."""
        name = self.fresh_name(base)
        stored = self._store(name, array)
        # Nothing reads it yet, so no other shape can change; inferring all anew would take quadratic time.
        port = Port(name, dtype_name(stored.data_type), tuple(stored.dims))
        for derived, fact in zip(ABOUT_VALUES, (port, port.shape, port.dtype), strict=True):
            if derived in self.__dict__:
                self.__dict__[derived][name] = fact
        return name

    def _store(self, name: str, array: Array) -> TensorProto:
        fresh = numpy_helper.from_array(np.array(array, order="C"), name)
        if name in self.initializers:
            stored = next(tensor for tensor in self.model.graph.initializer if tensor.name == name)
            stored.CopyFrom(fresh)
        else:
            self.model.graph.initializer.append(fresh)
        # Decoding all weights anew for each one added would take quadratic time.
        self.initializers[name] = numpy_helper.to_array(fresh)
        self.initializers[name].setflags(write=False)
        return fresh

    def set_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Make `nodes` the operators of the model; the caller keeps them in running order."""
        kept = [copy_of(node) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        self._nodes_changed()

    def replace(self, replacements: Mapping[str, list[NodeProto]]) -> None:
        """Put a list of nodes (or none) in the place of each node named in `replacements`."""
        self.set_nodes(new for node in self.nodes for new in replacements.get(node.name, [node]))

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of tensor `old` read `new` instead."""
        for node in self.model.graph.node:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new
        self._nodes_changed()

    # Files

    def copy(self) -> "Graph":
        """An independent copy."""
        fresh = Graph(copy_of(self.model), self.notes)
        fresh.ranges = dict(self.ranges)
        return fresh

    def to_bytes(self) -> bytes:
        """The model as one ONNX file, the same bytes each time."""
        return bytes(self.model.SerializeToString(deterministic=True))

    def save(self, path: Path | str) -> None:
        """Write the model as one ONNX file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> "Graph":
        """Read back what `save` wrote; files of others go through `ingest` instead."""
        model = onnx.ModelProto()
        model.ParseFromString(Path(path).read_bytes())
        return cls(model)


def copy_of(message: Any) -> Any:
    """A copy of any protobuf message."""
    fresh = type(message)()
    fresh.CopyFrom(message)
    return fresh


def dtype_name(data_type: int) -> str:
    """ONNX's element type in NumPy's words, such as `float32`."""
    name = str(TensorProto.DataType.Name(data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def port_of(value: ValueInfoProto) -> Port:
    """Name, element type and shape of a tensor-valued ValueInfo."""
    tensor = value.type.tensor_type
    dims = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else FREE
        for dim in tensor.shape.dim
    )
    return Port(value.name, dtype_name(tensor.elem_type), dims)


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as plain Python values; texts are decoded."""
    values = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def make_node(op: str, inputs: list[str], outputs: list[str], name: str, **options: Any) -> NodeProto:
    """A named node of the standard operators; options of None are left out."""
    kept = {key: value for key, value in options.items() if value is not None}
    return helper.make_node(op, inputs, outputs, name=name, **kept)
