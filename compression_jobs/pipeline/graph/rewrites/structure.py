"""Rewrites that tidy a graph without touching what its layers compute.

Each takes a graph, changes it in place and says whether it did.
"""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.graph import Array, Graph, attributes, copy_of, make_node
from compression_jobs.pipeline.graph.running import open_session, run_once

# Never computed ahead: chance would freeze, and a quantised model would stop being one.
NOT_FOLDED = ("Random", "Bernoulli", "Multinomial", "Quantize", "Dequantize", "DynamicQuantize")
MAX_FOLDED_ELEMENTS = 1 << 24


def drop_remarks(graph: Graph) -> bool:
    """Remove texts that nothing runs: doc strings, stack traces of the exporter, stale shape hints."""
    proto = graph.model.graph
    del graph.model.metadata_props[:], proto.metadata_props[:], proto.value_info[:]
    graph.model.doc_string = proto.doc_string = ""
    for node in proto.node:
        del node.metadata_props[:]
        node.doc_string = ""
    graph.changed()
    return True


def name_nodes(graph: Graph) -> bool:
    """Give every node without a name, or with another's, a name like `Conv_3`."""
    seen: set[str] = set()
    renamed = False
    for index, node in enumerate(graph.model.graph.node):
        if not node.name or node.name in seen:
            node.name = graph.fresh_name(f"{node.op_type}_{index}")
            renamed = True
        seen.add(node.name)
    graph.changed()
    return renamed


def drop_constant_inputs(graph: Graph) -> bool:
    """Take weights out of the list of inputs, where old exporters put them too."""
    constants = {tensor.name for tensor in graph.model.graph.initializer}
    kept = [copy_of(value) for value in graph.model.graph.input if value.name not in constants]
    if len(kept) == len(graph.model.graph.input):
        return False
    del graph.model.graph.input[:]
    graph.model.graph.input.extend(kept)
    graph.changed()
    return True


def constants_to_initializers(graph: Graph) -> bool:
    """Turn Constant nodes into initializers."""
    found: dict[str, Array] = {}
    gone: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        value = _constant_value(node) if node.op_type == "Constant" else None
        if value is not None and node.output[0] not in graph.output_names:
            found[node.output[0]] = value
            gone[node.name] = []
    return _replace_by_constants(graph, found, gone)


def _constant_value(node: NodeProto) -> Array | None:
    if not node.attribute:
        raise Refused("a Constant without a value", node=node.name, remedy="export the model again")
    (name, value), *_ = attributes(node).items()
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    kind = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return np.array(value, kind[name]) if name in kind else None


def fold_shapes(graph: Graph) -> bool:
    """Replace Shape and Size of tensors with static shape by their values."""
    found: dict[str, Array] = {}
    gone: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type not in ("Shape", "Size") or node.output[0] in graph.output_names:
            continue
        shape = graph.shapes.get(node.input[0])
        if shape is not None:
            options = attributes(node)
            part = shape[options.get("start", 0) : options.get("end")]
            found[node.output[0]] = np.array(part if node.op_type == "Shape" else np.prod(shape), np.int64)
            gone[node.name] = []
    return _replace_by_constants(graph, found, gone)


def fold_constants(graph: Graph) -> bool:
    """Compute ahead whatever depends on constants alone."""
    known = set(graph.initializers)
    folded: list[NodeProto] = []
    for node in graph.nodes:
        if _can_fold(graph, node) and all(name in known or not name for name in node.input):
            folded.append(node)
            known.update(node.output)
    inside = {name for node in folded for name in node.output}
    outside = [node for node in graph.nodes if not inside.intersection(node.output)]
    wanted = sorted({name for node in outside for name in node.input if name in inside})
    values = _compute(graph, folded, wanted)
    return _replace_by_constants(graph, values, {node.name: [] for node in folded} if values else {})


def _can_fold(graph: Graph, node: NodeProto) -> bool:
    sizes = [np.prod(graph.shapes.get(name, ()), dtype=float) for name in node.output]
    leaves = graph.output_names.intersection(node.output)
    return not node.op_type.startswith(NOT_FOLDED) and not leaves and max(sizes) <= MAX_FOLDED_ELEMENTS


def _compute(graph: Graph, nodes: list[NodeProto], wanted: list[str]) -> dict[str, Array]:
    if not wanted:
        return {}
    part = copy_of(graph.model)
    del part.graph.node[:], part.graph.input[:], part.graph.output[:]
    part.graph.node.extend(nodes)
    needed = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.model.graph.initializer if tensor.name in needed]
    del part.graph.initializer[:]
    part.graph.initializer.extend(kept)
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    values = run_once(open_session(part.SerializeToString()), {})
    return dict(zip(wanted, values, strict=True))


def _replace_by_constants(graph: Graph, found: dict[str, Array], gone: dict[str, list[NodeProto]]) -> bool:
    for name, value in found.items():
        graph.set_initializer(name, value)
    if gone:
        graph.replace(gone)
    return bool(found or gone)


def remove_identities(graph: Graph) -> bool:
    """Take out operators that hand on their first input unchanged."""
    stands_for: dict[str, str] = {}
    gone: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        if _changes_nothing(graph, node) and node.output[0] not in graph.output_names:
            stands_for[node.output[0]] = stands_for.get(node.input[0], node.input[0])
            gone[node.name] = []
    for node in graph.model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = stands_for.get(name, name)
    graph.replace(gone)
    ended = [_end_at_maker(graph, name) for name in sorted(graph.output_names)]
    return bool(gone) or any(ended)


def _end_at_maker(graph: Graph, target: str) -> bool:
    """Let the operator before an identity make the output itself, unless its name is needed too."""
    node = graph.producers.get(target)
    if node is None or not _changes_nothing(graph, node):
        return False
    source = node.input[0]
    maker = graph.producers.get(source)
    if maker is None or source in graph.output_names:
        return False
    maker.output[list(maker.output).index(source)] = target
    graph.redirect(source, target)
    graph.replace({node.name: []})
    return True


def _changes_nothing(graph: Graph, node: NodeProto) -> bool:
    if not node.input or not node.input[0]:
        return False
    op, options = node.op_type, attributes(node)
    before, after = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
    same_shape = before is not None and before == after
    if op == "Identity" or (op in ("Concat", "Sum", "Max", "Min", "Mean") and len(node.input) == 1):
        return True
    if op == "Dropout":
        training = graph.constant(node, 2)
        return (
            len(node.input) < 3 or not node.input[2] or (training is not None and not training.any())
        ) and not any(
            name in graph.consumers or name in graph.output_names for name in node.output[1:] if name
        )
    if op == "Cast":
        return graph.dtypes.get(node.input[0]) == graph.dtypes.get(node.output[0]) is not None
    if op == "Transpose":
        order = options.get("perm")
        return order is not None and list(order) == sorted(order)
    if op == "Pad":
        pads = graph.constant(node, 1)
        return pads is not None and not pads.any()
    return op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand") and same_shape


def remove_dead(graph: Graph) -> bool:
    """Remove operators and constants that no output depends on."""
    needed = set(graph.output_names)
    kept: list[NodeProto] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [copy_of(tensor) for tensor in graph.model.graph.initializer if tensor.name in needed]
    changed = len(kept) < len(graph.nodes) or len(constants) < len(graph.model.graph.initializer)
    if changed:
        graph.set_nodes(reversed(kept))
        del graph.model.graph.initializer[:]
        graph.model.graph.initializer.extend(constants)
        graph.changed()
    return changed


def keep_scores(graph: Graph) -> bool:
    """Leave only the first output of floats, which models are judged by; labels made beside it go."""
    kept = next((value for value in graph.outputs if value.dtype == "float32"), None)
    if kept is None or len(graph.outputs) == 1:
        return False
    chosen = [copy_of(value) for value in graph.model.graph.output if value.name == kept.name]
    del graph.model.graph.output[:]
    graph.model.graph.output.extend(chosen)
    graph.changed()
    remove_dead(graph)
    return True


def drop_unread_results(graph: Graph) -> bool:
    """Leave out optional results that nobody reads, such as the last states of an LSTM."""
    read = set(graph.consumers) | graph.output_names
    fresh: dict[str, list[str]] = {}
    for node in graph.nodes:
        optional = _optional_results(graph, node)
        names = [
            "" if place in optional and name not in read else name for place, name in enumerate(node.output)
        ]
        while names and not names[-1]:
            names.pop()
        if names and names != list(node.output):
            fresh[node.name] = names
    for node in graph.model.graph.node:
        if node.name in fresh:
            node.output[:] = fresh[node.name]
    graph.changed()
    return bool(fresh)


def _optional_results(graph: Graph, node: NodeProto) -> set[int]:
    if len(node.output) < 2 or node.domain:
        return set()
    results = onnx.defs.get_schema(node.op_type, graph.opset, node.domain).outputs
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return {place for place, result in enumerate(results) if result.option == optional}


def one_reshape(graph: Graph) -> bool:
    """Write Flatten, Squeeze, Unsqueeze and Reshape as one Reshape to a constant shape without zeros."""
    replacements: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        shape = graph.shapes.get(node.output[0])
        if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") or shape is None or 0 in shape:
            continue
        source = _before_reshapes(graph, node)
        if _is_plain_reshape(graph, node) and source == node.input[0]:
            continue
        wanted = graph.add_initializer(f"{node.name}_shape", np.array(shape, np.int64))
        replacements[node.name] = [make_node("Reshape", [source, wanted], [node.output[0]], node.name)]
    graph.replace(replacements)
    return bool(replacements)


def _before_reshapes(graph: Graph, node: NodeProto) -> str:
    """The tensor that a chain of reshapes starts from: only the last of them counts."""
    source = str(node.input[0])
    maker = graph.producers.get(source)
    while maker is not None and maker.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        source = str(maker.input[0])
        maker = graph.producers.get(source)
    return source


def _is_plain_reshape(graph: Graph, node: NodeProto) -> bool:
    shape = graph.constant(node, 1)
    plain = node.op_type == "Reshape" and not node.attribute
    return plain and shape is not None and tuple(shape.tolist()) == graph.shapes.get(node.output[0])
