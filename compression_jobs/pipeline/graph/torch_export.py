"""Torch to ONNX: a Net becomes a canonical graph again, written with onnx.helper and checked in onnxruntime."""

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compression_jobs.pipeline.errors import PipelineError
from compression_jobs.pipeline.graph import net as n
from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.graph import Array, Graph, copy_of, make_node
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, SEED, Reference, alike

OPSET, IR_VERSION = 17, 8


def export_net(net: n.Net, base: Graph, rows: Array | None = None) -> Graph:
    """The graph of a trained Net; `base`, the graph it was imported from, lends ports and settings.

    Batch normalisation is folded first, and fake quantization leaves its weights and ranges behind.
    """
    plain = net.copy().eval()
    fold_batch_norm(plain)
    plain.remove_dead()
    writer = Writer(base)
    nodes = [node for op in plain for node in writer.nodes_of(op)]
    target = _model(plain, base, nodes, writer.constants)
    graph = Graph(target, base.notes)
    graph.ranges = dict(plain.ranges)
    _state_output_shapes(graph)
    _verify(plain, graph, rows)
    return graph


class Writer:
    """Writes the node of each operator and collects the constants that they read."""

    def __init__(self, base: Graph) -> None:
        self.base = base
        self.constants: dict[str, Array] = {}

    def nodes_of(self, op: n.Op) -> list[NodeProto]:
        """The nodes that compute an operator."""
        if isinstance(op, n.Dense):
            return [self._dense(op)] if op.is_flat else self._matrix_product(op)
        if isinstance(op, n.Conv):
            return [self._conv(op)]
        if isinstance(op, n.ConvTranspose):
            return [self._transposed(op)]
        if isinstance(op, n.Embedding):
            table = self._constant(f"{op.name}_weight", _array(op.used_weight))
            return [make_node("Gather", [table, op.inputs[0]], op.outputs, op.name, axis=0)]
        if isinstance(op, n.BatchNorm):
            return [self._batch_norm(op)]
        if isinstance(op, n.Reshape):
            shape = self._constant(f"{op.name}_shape", np.array([1, *op.shape], np.int64))
            return [make_node("Reshape", [op.inputs[0], shape], op.outputs, op.name)]
        if isinstance(op, n.Plain):
            return [self._plain(op)]
        raise PipelineError(f"{type(op).__name__} has no ONNX form", node=op.name)

    def _dense(self, op: n.Dense) -> NodeProto:
        return make_node("Gemm", [op.inputs[0], *self._weights(op)], op.outputs, op.name, transB=1)

    def _matrix_product(self, op: n.Dense) -> list[NodeProto]:
        """Gemm takes rows only; with more axes it is a product and, when there is one, a bias."""
        weight, bias = self._weights(op)
        matrix = self._constant(f"{op.name}_matrix", np.ascontiguousarray(self.constants[weight].T))
        if not self.constants[bias].any():
            return [make_node("MatMul", [op.inputs[0], matrix], op.outputs, op.name)]
        inside = f"{op.output}_product"
        return [
            make_node("MatMul", [op.inputs[0], matrix], [inside], op.name),
            make_node("Add", [inside, bias], op.outputs, f"{op.name}_add"),
        ]

    def _conv(self, op: n.Conv) -> NodeProto:
        return make_node(
            "Conv",
            [op.inputs[0], *self._weights(op)],
            op.outputs,
            op.name,
            dilations=op.dilations,
            group=op.groups,
            kernel_shape=op.kernel,
            pads=op.pads,
            strides=op.strides,
        )

    def _transposed(self, op: n.ConvTranspose) -> NodeProto:
        return make_node(
            "ConvTranspose",
            [op.inputs[0], *self._weights(op)],
            op.outputs,
            op.name,
            dilations=op.dilations,
            group=op.groups,
            kernel_shape=list(op.weight.shape[2:]),
            output_padding=op.output_padding,
            pads=op.padding * 2,
            strides=op.strides,
        )

    def _batch_norm(self, op: n.BatchNorm) -> NodeProto:
        values = {"gamma": op.gamma, "beta": op.beta, "mean": op.mean, "variance": op.variance}
        names = [self._constant(f"{op.name}_{what}", _array(value)) for what, value in values.items()]
        return make_node("BatchNormalization", [op.inputs[0], *names], op.outputs, op.name, epsilon=n.EPSILON)

    def _plain(self, op: n.Plain) -> NodeProto:
        """The node it came from, with today's names; settings that it read as constants come along."""
        node: NodeProto = copy_of(op.node)
        node.name = op.name
        for place, name in enumerate(op.inputs):
            node.input[place] = name
        for name in node.input:
            if name in self.base.initializers:
                self.constants[name] = self.base.initializers[name]
        del node.output[:]
        node.output.extend(op.outputs)
        return node

    def _weights(self, op: n.Layer) -> list[str]:
        with torch.no_grad():
            weight = self._constant(f"{op.name}_weight", _array(op.used_weight))
        return [weight, self._constant(f"{op.name}_bias", _array(op.bias))]

    def _constant(self, name: str, value: Array) -> str:
        # The model may have a tensor of that name already.
        while name in self.constants or name in self.base.producers or name in self.base.output_names:
            name += "_"
        self.constants[name] = value
        return name


def _array(tensor: torch.Tensor) -> Array:
    # Adding zero turns -0.0, which a mask makes of a negative weight, into the zero that coding looks for.
    return np.ascontiguousarray(tensor.detach().numpy().astype(np.float32) + np.float32(0))


def _model(net: n.Net, base: Graph, nodes: list[NodeProto], constants: dict[str, Array]) -> onnx.ModelProto:
    source = helper.make_tensor_value_info(net.source, TensorProto.FLOAT, [1, *net.shape])
    if base.inputs[0].dtype != "float32":
        source = copy_of(base.model.graph.input[0])
    ports = {value.name: value for value in base.model.graph.output}
    outputs = []
    for name, old in zip(net.outputs, ports, strict=True):
        if name != old:  # the layer that made it is gone: an identity keeps the name that callers know
            nodes.append(make_node("Identity", [name], [old], f"{old}_output"))
        fresh = copy_of(ports[old])
        fresh.type.tensor_type.ClearField("shape")
        outputs.append(fresh)
    for name, value in net.constants.items():
        constants.setdefault(name, value.numpy())
    read = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read]
    body = helper.make_graph(nodes, base.model.graph.name or "net", [source], outputs, tensors)
    opset = helper.make_opsetid("", base.opset or OPSET)
    return helper.make_model(body, opset_imports=[opset], ir_version=base.model.ir_version or IR_VERSION)


def _state_output_shapes(graph: Graph) -> None:
    shapes = graph.shapes
    for value in graph.model.graph.output:
        for size in shapes[value.name]:
            value.type.tensor_type.shape.dim.add().dim_value = size
    graph.changed()


def _verify(net: n.Net, graph: Graph, rows: Array | None) -> None:
    onnx.checker.check_model(graph.model)
    if rows is None:
        rows = np.random.default_rng(SEED).standard_normal((ROWS_COMPARED, *net.shape)).astype(np.float32)
    reference = Reference.of(graph, rows[:ROWS_COMPARED])
    with torch.no_grad():
        answers = net.values(torch.from_numpy(np.array(reference.rows)), net.outputs)
    for row, expected in enumerate(reference.answers):
        for wanted, made in zip(expected, answers, strict=True):
            if not alike(wanted, made[row : row + 1].numpy()):
                raise PipelineError("the trained model answers differently in onnxruntime than in torch")
