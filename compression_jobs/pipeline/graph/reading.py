"""A model file read with suspicion: size, structure and types are checked before anything runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, inliner, version_converter

from compression_jobs.pipeline.errors import PipelineError, Refused, refuse_all
from compression_jobs.pipeline.graph.external import DataFiles, all_tensors, inline
from compression_jobs.pipeline.graph.limits import (
    MAX_MODEL_BYTES,
    MAX_NODES,
    OLDEST_OPSET,
    check_constant,
    elements,
)

STANDARD, CLASSICAL = "", "ai.onnx.ml"
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
NO_TENSORS = {"SplitToSequence", "ConcatFromSequence", "ZipMap", "Optional", "OptionalGetElement"}
NOT_AN_ONNX = "this is not an ONNX model"

# What protobuf, onnx and NumPy raise on damaged input, UnicodeDecodeError included.
DAMAGE = (DecodeError, EncodeError, ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError,
          AttributeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError,
          version_converter.ConvertError)  # fmt: skip


@contextmanager
def damage_refused(doing: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever a library raises on damaged input into a Refused that says what was being done."""
    try:
        yield
    except PipelineError:
        raise
    except DAMAGE as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Refused(f"{doing}: {lines[0][:300]}", remedy=remedy) from error


def read_model(path: Path | str, data_files: DataFiles = ()) -> ModelProto:
    """The model at `path`, all weights inside, checked and in running order; raises Refused."""
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise Refused(f"the model has {size} bytes; at most {MAX_MODEL_BYTES} are accepted")
    return parse_model(path.read_bytes(), data_files)


def parse_model(content: bytes, data_files: DataFiles = ()) -> ModelProto:
    """`read_model` for bytes already in memory."""
    with damage_refused(NOT_AN_ONNX, "export it with torch.onnx.export, tf2onnx or skl2onnx"):
        model = ModelProto()
        model.ParseFromString(content)
        if not model.graph.node or not model.opset_import:
            raise Refused(NOT_AN_ONNX + ": it has no operators", remedy="upload the exported .onnx file")
    with damage_refused("the model is damaged"):
        del model.training_info[:]
        model = _without_functions(model)
        _leave_out_zip_maps(model)
        _check_structure(model)
        inline(model, data_files)
        for tensor in all_tensors(model):
            check_constant(tensor)
        _sort_nodes(model)
        _state_output_shapes(model)
        onnx.checker.check_model(model)
    return model


def _leave_out_zip_maps(model: ModelProto) -> None:
    """What skl2onnx ends classifiers with: a dictionary of each row's chances, which are numbers before it."""
    outputs = {value.name: value for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "ZipMap" and list(node.output)[:1] and node.output[0] in outputs:
            classes = sum(len(entry.ints) + len(entry.strings) for entry in node.attribute)
            value = outputs[node.output[0]]
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["rows", classes]))
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name))


def _state_output_shapes(model: ModelProto) -> None:
    """Some exporters leave out the shapes of outputs, which onnxruntime accepts and the checker does not."""
    if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        inferred = onnx.shape_inference.infer_shapes(model)
        shapeless = [v.name for v in inferred.graph.output if not v.type.tensor_type.HasField("shape")]
        refuse_all(
            [f"output {name}: no shape is stated and none can be inferred" for name in shapeless],
            "export the model again, with shapes",
        )
        del model.graph.output[:]
        model.graph.output.extend(inferred.graph.output)


def _without_functions(model: ModelProto) -> ModelProto:
    """Functions of the model (older torch exporters leave some) written out where they are called."""
    if not model.functions:
        return model
    total = _count_nodes(model)
    if total > MAX_NODES:
        raise Refused(
            f"the model has {total} operators once its functions are written out; at most {MAX_NODES}"
        )
    return inliner.inline_local_functions(model)


def _count_nodes(model: ModelProto) -> int:
    """The operators after writing out all functions, without doing it: calls can grow exponentially."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    counts: dict[tuple[str, str], int] = {}
    waiting = dict(bodies)
    while waiting:
        ready = [key for key, body in waiting.items() if not any(_call_of(n) in waiting for n in body)]
        if not ready:
            raise Refused(f"the functions {sorted(name for _, name in waiting)} call each other in a circle")
        for key in ready:
            counts[key] = min(sum(counts.get(_call_of(n), 1) for n in waiting.pop(key)), MAX_NODES + 1)
    return sum(counts.get(_call_of(node), 1) for node in model.graph.node)


def _call_of(node: NodeProto) -> tuple[str, str]:
    return node.domain, node.op_type


def _check_structure(model: ModelProto) -> None:
    """Refuse, all at once by name, what no pass and no small device can do."""
    nodes = model.graph.node
    if len(nodes) > MAX_NODES:
        raise Refused(f"the model has {len(nodes)} operators; at most {MAX_NODES} are accepted")
    _check_opset(model)
    obstacles = {
        "export the model for one fixed path, without If, Loop or Scan": [
            f"{describe(n)}: control flow" for n in nodes if _has_subgraph(n)
        ],
        "export a model whose values are all plain tensors (skl2onnx: zipmap=False)": _not_tensors(model),
        "export with standard ONNX operators only": [
            f"{describe(n)}: operator of the custom domain {n.domain!r}" for n in nodes if not _is_standard(n)
        ],
        "export with an opset that has these operators": _unknown_operators(model),
        "export the model whole": _dangling(model),
    }
    problems = [problem for found in obstacles.values() for problem in found]
    refuse_all(problems, "; ".join(remedy for remedy, found in obstacles.items() if found))
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        elements([max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim], value.name)


def _unknown_operators(model: ModelProto) -> list[str]:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return [
        f"{describe(node)}: there is no such operator in opset {versions.get(node.domain, 0)}"
        for node in model.graph.node
        if _is_standard(node) and not _is_known(node, versions.get(node.domain, 0))
    ]


def _dangling(model: ModelProto) -> list[str]:
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    known.update(tensor.values.name for tensor in graph.sparse_initializer)
    known.update(name for node in graph.node for name in node.output)
    return [
        f"{describe(node)}: reads {name!r}, which nothing makes"
        for node in graph.node
        for name in node.input
        if name not in known
    ]


def _is_known(node: NodeProto, version: int) -> bool:
    return version > 0 and onnx.defs.has(node.op_type, version, node.domain)


def _check_opset(model: ModelProto) -> None:
    for entry in model.opset_import:
        entry.domain = STANDARD if entry.domain == "ai.onnx" else entry.domain
    for node in model.graph.node:
        node.domain = STANDARD if node.domain == "ai.onnx" else node.domain
    versions = [entry.version for entry in model.opset_import if entry.domain == STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if versions and not OLDEST_OPSET <= versions[0] <= newest:
        raise Refused(
            f"the model uses opset {versions[0]}; {OLDEST_OPSET} to {newest} are understood",
            remedy="export it with opset_version=17",
        )


def describe(node: NodeProto) -> str:
    """How messages call a node: its name and operator."""
    return f"{node.name} ({node.op_type})" if node.name else f"{node.op_type} making {list(node.output)[:1]}"


def _has_subgraph(node: NodeProto) -> bool:
    kinds = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    inside = any(entry.type in kinds or entry.HasField("g") or entry.graphs for entry in node.attribute)
    return inside or (node.op_type in CONTROL_FLOW and _is_standard(node))


def _is_standard(node: NodeProto) -> bool:
    return node.domain in (STANDARD, CLASSICAL)


def _not_tensors(model: ModelProto) -> list[str]:
    graph = model.graph
    problems = [f"{tensor.values.name}: sparse tensor" for tensor in graph.sparse_initializer]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        kind = value.type.WhichOneof("value")
        if kind not in (None, "tensor_type"):
            problems.append(f"{value.name}: {kind.removesuffix('_type')} type")
        elif value.type.tensor_type.elem_type == TensorProto.STRING:
            problems.append(f"{value.name}: text type")
    for node in graph.node:
        sparse = any(entry.HasField("sparse_tensor") or entry.sparse_tensors for entry in node.attribute)
        if node.op_type.startswith("Sequence") or node.op_type in NO_TENSORS or sparse:
            problems.append(f"{describe(node)}: sequence, optional or sparse type")
    return problems


def _sort_nodes(model: ModelProto) -> None:
    """Put the operators in running order, keeping the given order where it is free; refuse circles."""
    nodes = list(model.graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{makers[name] for name in node.input if name in makers} for node in nodes]
    readers: dict[int, list[int]] = {}
    for index, sources in enumerate(needs):
        for source in sources:
            readers.setdefault(source, []).append(index)
    ready = [index for index, sources in enumerate(needs) if not sources]
    heapify(ready)
    order: list[int] = []
    while ready:
        index = heappop(ready)
        order.append(index)
        for reader in readers.get(index, []):
            needs[reader].discard(index)
            if not needs[reader]:
                heappush(ready, reader)
    _refuse_circle([node for index, node in enumerate(nodes) if needs[index]])
    if order != list(range(len(nodes))):
        sorted_nodes = [nodes[index] for index in order]
        fresh = [type(node).FromString(node.SerializeToString()) for node in sorted_nodes]
        del model.graph.node[:]
        model.graph.node.extend(fresh)


def _refuse_circle(nodes: list[NodeProto]) -> None:
    problems = [f"{describe(node)}: waits for its own result" for node in nodes]
    refuse_all(problems, "a model's operators must not form a circle")
