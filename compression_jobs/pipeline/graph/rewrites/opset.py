"""Brings the standard operators to opset 17, from below by onnx's converter and from above by own rules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, version_converter
from onnx.inliner import inline_selected_functions

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.graph import Graph, attributes, copy_of, make_node
from compression_jobs.pipeline.graph.reading import damage_refused, describe
from compression_jobs.pipeline.graph.rewrites.structure import name_nodes

OPSET, IR_VERSION = 17, 8

# Newer versions of these only allow more element types, or gained attributes named here whose default
# (the value given) means what opset 17 does.
SAME_BUT: dict[str, dict[str, Any]] = {
    "AveragePool": {"dilations": 1},
    "BatchNormalization": {},
    "Cast": {"saturate": 1, "round_mode": "up"},
    "Reshape": {"allowzero": None},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch"},
}
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
              "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip


def write_out_newer(graph: Graph) -> bool:
    """Write out operators that opset 17 does not know and whose definition is made of others, such as Mish."""
    newer = {node.op_type for node in graph.nodes if _is_function(node, graph.opset)}
    if not newer:
        return False
    # The inliner asks for the types of everything, of constants too.
    typed = onnx.shape_inference.infer_shapes(graph.model, data_prop=True)
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
    )
    with damage_refused(f"{', '.join(sorted(newer))} cannot be written out", "export with opset_version=17"):
        written = inline_selected_functions(typed, [("", op) for op in newer], inline_schema_functions=True)
    del written.graph.value_info[:]
    graph.model.CopyFrom(written)
    graph.changed()
    return name_nodes(graph)


def _is_function(node: NodeProto, opset: int) -> bool:
    if node.domain or _since(node, OPSET) or node.op_type in RULES or not _since(node, opset):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def to_opset(graph: Graph) -> bool:
    """Bring the model to opset 17 and IR version 8; raises Refused naming operators that cannot follow."""
    if graph.opset == OPSET and graph.model.ir_version == IR_VERSION:
        return False
    if graph.opset < OPSET:
        _raise_to_opset(graph)
    elif graph.opset > OPSET:
        _lower_to_opset(graph)
    graph.model.ir_version = IR_VERSION
    used = {node.domain for node in graph.nodes} | {""}
    kept = [copy_of(entry) for entry in graph.model.opset_import if entry.domain in used]
    del graph.model.opset_import[:]
    graph.model.opset_import.extend(kept)
    for entry in graph.model.opset_import:
        entry.version = OPSET if entry.domain == "" else entry.version
    graph.changed()
    return True


def _raise_to_opset(graph: Graph) -> None:
    # The converter works on the standard operators alone.
    if all(_unchanged_since(node, graph.opset) for node in graph.nodes):
        return
    with damage_refused(
        f"the model cannot be brought from opset {graph.opset} to {OPSET}", "export with opset 17"
    ):
        # Before version 4 every constant had to be listed as an input, too, and the converter insists.
        graph.model.ir_version = IR_VERSION
        graph.model.CopyFrom(version_converter.convert_version(graph.model, OPSET))
    graph.changed()


def _unchanged_since(node: NodeProto, opset: int) -> bool:
    return bool(node.domain) or _since(node, opset) == _since(node, OPSET)


def _since(node: NodeProto, opset: int) -> int:
    """The opset in which the operator took the form it has at `opset`; 0 when it did not exist."""
    if not onnx.defs.has(node.op_type, opset):
        return 0
    return int(onnx.defs.get_schema(node.op_type, opset).since_version)


def _lower_to_opset(graph: Graph) -> None:
    replacements: dict[str, list[NodeProto]] = {}
    problems: list[str] = []
    for node in graph.nodes:
        if _unchanged_since(node, graph.opset):
            continue
        try:
            replacements[node.name] = _lowered(graph, node)
        except Refused as error:
            problems.append(str(error))
    refuse_all(problems, "export the model with opset_version=17")
    graph.replace(replacements)


def _lowered(graph: Graph, node: NodeProto) -> list[NodeProto]:
    own_rule = RULES.get(node.op_type)
    if own_rule is not None:
        return own_rule(graph, node)
    if not _since(node, OPSET):
        raise Refused(f"this operator is newer than opset {OPSET}", node=describe(node))
    options = attributes(node)
    for name, harmless in SAME_BUT.get(node.op_type, {}).items():
        value = options.pop(name, harmless)
        if harmless is not None and not np.all(np.equal(np.asarray(value), harmless)):
            raise Refused(f"{name} = {value} is newer than opset {OPSET}", node=describe(node))
    known = set(onnx.defs.get_schema(node.op_type, OPSET).attributes)
    unknown = sorted(set(options) - known)
    if unknown:
        raise Refused(f"{unknown[0]} is newer than opset {OPSET}", node=describe(node))
    return [make_node(node.op_type, list(node.input), list(node.output), node.name, **options)]


def _axes_as_attribute(graph: Graph, node: NodeProto) -> list[NodeProto]:
    options = attributes(node)
    empty_is_none = options.pop("noop_with_empty_axes", 0)
    if len(node.input) > 1 and node.input[1]:
        axes = graph.constant(node, 1)
        if axes is None:
            raise Refused("its axes are computed", node=describe(node))
        options["axes"] = axes.tolist() or None
    if empty_is_none and not options.get("axes"):
        return [make_node("Identity", [node.input[0]], list(node.output), node.name)]
    return [make_node(node.op_type, [node.input[0]], list(node.output), node.name, **options)]


def _pad(graph: Graph, node: NodeProto) -> list[NodeProto]:
    inputs = list(node.input)
    if len(inputs) > 3 and inputs[3]:
        pads, axes, shape = graph.constant(node, 1), graph.constant(node, 3), graph.shapes.get(inputs[0])
        if pads is None or axes is None or shape is None:
            raise Refused("its pads or axes are computed", node=describe(node))
        full = np.zeros((2, len(shape)), np.int64)
        full[:, axes] = pads.reshape(2, -1)
        inputs[1] = graph.add_initializer(f"{node.name}_pads", full.reshape(-1))
    options = attributes(node)
    if options.get("mode") == "wrap":
        raise Refused(f"mode wrap is newer than opset {OPSET}", node=describe(node))
    return [make_node("Pad", inputs[:3], list(node.output), node.name, **options)]


def _split(graph: Graph, node: NodeProto) -> list[NodeProto]:
    options = attributes(node)
    parts = options.pop("num_outputs", None)
    inputs = list(node.input)
    if parts is not None:
        shape = graph.shapes.get(inputs[0])
        if shape is None:
            raise Refused("the size it splits is not known", node=describe(node))
        size = shape[options.get("axis", 0)]
        chunk = -(-size // parts)
        sizes = [chunk] * (parts - 1) + [size - chunk * (parts - 1)]
        inputs = [inputs[0], graph.add_initializer(f"{node.name}_sizes", np.array(sizes, np.int64))]
    return [make_node("Split", inputs, list(node.output), node.name, **options)]


def _gelu(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """Gelu written out (Hendrycks and Gimpel 2016): exact by Erf, or the usual approximation by Tanh."""
    x, y = node.input[0], node.output[0]
    approximate = attributes(node).get("approximate", "none") == "tanh"
    dtype = np.float64 if graph.dtypes.get(x) == "float64" else np.float32
    nodes: list[NodeProto] = []

    def constant(value: float) -> str:
        return graph.add_initializer(f"{node.name}_constant", np.array(value, dtype))

    def step(op: str, *inputs: str, out: str | None = None) -> str:
        name = graph.fresh_name(f"{node.name}_{op.lower()}")
        nodes.append(make_node(op, list(inputs), [out or name], name))
        return out or name

    if approximate:
        cube = step("Mul", step("Mul", x, x), step("Mul", x, constant(0.044715)))
        inner = step("Tanh", step("Mul", step("Add", x, cube), constant((2 / np.pi) ** 0.5)))
    else:
        inner = step("Erf", step("Mul", x, constant(0.5**0.5)))
    step("Mul", step("Mul", x, constant(0.5)), step("Add", inner, constant(1.0)), out=y)
    return nodes


RULES: dict[str, Callable[[Graph, NodeProto], list[NodeProto]]] = {
    **dict.fromkeys(REDUCTIONS, _axes_as_attribute),
    "Pad": _pad,
    "Split": _split,
    "Gelu": _gelu,
}
