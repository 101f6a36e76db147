"""ONNX in, one plain form out: static shapes, batch 1, opset 17, constants folded.

The form (what passes and emitters may rely on): every node has a name and every tensor a static shape; no
Constant, Identity, Dropout or dead node; Flatten, Squeeze and Unsqueeze are Reshape to a constant shape; dense
layers are Gemm with weights (out, in), transB = 1, alpha = beta = 1; convolutions and pools state kernel, strides
and pads; scales and BatchNormalization are folded into layers; means over the image are GlobalAveragePool; relu
is Relu, relu6 is Clip with constant bounds. Each rewrite is checked against the original in onnxruntime, and
dropped, with a note, when outputs change.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression_jobs.pipeline.dataset import Dataset
from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.external import DataFiles, files_beside
from compression_jobs.pipeline.graph.graph import FREE, Graph, Shape
from compression_jobs.pipeline.graph.limits import elements
from compression_jobs.pipeline.graph.reading import CLASSICAL, damage_refused, describe, read_model
from compression_jobs.pipeline.graph.rewrites import gates, layers, opset, scalers, slopes, structure
from compression_jobs.pipeline.graph.running import ROWS_COMPARED, SEED, Reference

Array = NDArray[Any]
Rewrite = Callable[[Graph], bool]


def fold_to_the_end(graph: Graph) -> bool:
    """Fold shapes and constants until neither finds more; each round makes more shapes known."""
    rounds = 0
    while structure.fold_shapes(graph) | structure.fold_constants(graph):
        rounds += 1
    return rounds > 0


TIDY: tuple[Rewrite, ...] = (
    structure.drop_remarks,
    structure.name_nodes,
    structure.drop_constant_inputs,
    structure.constants_to_initializers,
)
REWRITES: tuple[Rewrite, ...] = (
    opset.write_out_newer,
    structure.constants_to_initializers,
    fold_to_the_end,
    opset.to_opset,
    structure.name_nodes,
    structure.constants_to_initializers,
    scalers.plain_scalers,
    structure.remove_identities,
    structure.remove_dead,
    structure.drop_unread_results,
    layers.explicit_windows,
    layers.fold_pads,
    layers.dense_layers,
    layers.plain_gemm,
    layers.fold_batch_norm,
    layers.plain_clips,
    slopes.shared_slopes,
    gates.find_hard_sigmoids,
    gates.find_hard_swishes,
    structure.remove_dead,
    layers.fold_affine,
    scalers.fold_into_dense,
    layers.batch_norm_to_conv,
    layers.reduction_to_pool,
    structure.one_reshape,
    structure.remove_identities,
    structure.remove_dead,
)


def inline_external(onnx_path: Path | str, data_files: DataFiles, out_path: Path | str) -> None:
    """Write the model at `onnx_path` to `out_path` as one file with all its weights inside; raises Refused."""
    Path(out_path).write_bytes(read_model(onnx_path, data_files).SerializeToString(deterministic=True))


def canonicalise(path: Path | str, sample: Array | None = None) -> Graph:
    """The model in the one form, checked on rows of `sample` (rows first); raises Refused.

    Without a sample seeded random rows are used, and then all dimensions but the batch must be fixed. The names
    of rewrites that had to be dropped are in `notes` of the result.
    """
    graph = Graph(read_model(path, files_beside(path)))
    with damage_refused("the model cannot be brought to one form"):
        for tidy in TIDY:
            tidy(graph)
        rows = _rows(graph, sample)
        reference = Reference.of(graph, rows)
        graph = _make_static(graph, rows, reference)
        for rewrite in REWRITES:
            graph = checked(graph, rewrite, reference)
        _set_output_shapes(graph, reference)
        _observe_shapes(graph, reference)
        _refuse_unknown_shapes(graph)
    return graph


def canonicalise_file(path: Path | str, dataset: Path | str | None, out: Path | str) -> list[str]:
    """`canonicalise` on files, for a limited child: writes `out` and returns the notes."""
    sample = None if dataset is None else Dataset.load(dataset).rows("calibration")[0]
    graph = canonicalise(path, sample)
    graph.save(out)
    return graph.notes


def _rows(graph: Graph, sample: Array | None) -> Array:
    if len(graph.inputs) != 1:
        names = ", ".join(port.name for port in graph.inputs) or "none"
        raise Refused(f"the model has {len(graph.inputs)} inputs ({names}); one is needed")
    port = graph.inputs[0]
    if port.dtype in ("float16", "bfloat16"):
        raise Refused(f"input {port.name} is {port.dtype}", remedy="export the model in float32")
    wanted = port.shape[1:]
    if sample is None:
        return _random_rows(port.name, port.dtype, wanted)
    fits = len(port.shape) == sample.ndim and all(
        want in (FREE, have) for want, have in zip(wanted, sample.shape[1:], strict=True)
    )
    if not fits or sample.dtype != port.dtype:
        raise Refused(
            f"a row of the data is {sample.dtype} {list(sample.shape[1:])}, "
            f"input {port.name} takes {port.dtype} {list(wanted)}",
            remedy="save x as the model takes it, rows first",
        )
    elements(sample.shape[1:], port.name)
    return sample[:ROWS_COMPARED]


def _random_rows(name: str, dtype: str, wanted: Shape) -> Array:
    if FREE in wanted or not wanted:
        raise Refused(
            f"input {name} has free dimensions {list(wanted)}", remedy="give a dataset whose rows settle them"
        )
    elements((ROWS_COMPARED, *wanted), name)
    chance = np.random.default_rng(SEED)
    if dtype.startswith("float"):
        return chance.standard_normal((ROWS_COMPARED, *wanted)).astype(dtype)
    return np.zeros((ROWS_COMPARED, *wanted), dtype)


def _make_static(graph: Graph, rows: Array, reference: Reference) -> Graph:
    """Fix the input to one row and forget the shapes stated for the outputs; they are inferred again."""
    fixed = graph.copy()
    set_dims(fixed.model.graph.input[0], (1, *rows.shape[1:]))
    for value in fixed.model.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed.changed()
    problem = reference.difference(fixed)
    if problem:
        batch = graph.inputs[0].shape[0]
        raise Refused(
            f"the model does not work on single rows, its batch is {'free' if batch == FREE else batch}: {problem}",
            remedy="export it with a batch of 1, or with a free batch dimension",
        )
    return fixed


def set_dims(value: Any, dims: Shape) -> None:
    """Give an input or output these dimensions; -1 stays free."""
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for size in dims:
        dim = shape.dim.add()
        if size != FREE:
            dim.dim_value = size


def checked(graph: Graph, rewrite: Rewrite, reference: Reference) -> Graph:
    """The graph after the rewrite, or as it was, with a note, when outputs changed."""
    before = graph.copy()
    if not rewrite(graph):
        return graph
    problem = reference.difference(graph)
    if problem is None:
        return graph
    before.notes.append(f"{rewrite.__name__.replace('_', ' ')} was dropped: {problem}")
    return before


def _set_output_shapes(graph: Graph, reference: Reference) -> None:
    for value, shape in zip(graph.model.graph.output, reference.output_shapes(), strict=True):
        set_dims(value, shape)
    graph.changed()


def _observe_shapes(graph: Graph, reference: Reference) -> None:
    """ONNX has no rules for the shapes that classical operators make; those that all rows agree on are noted."""
    if all(node.domain != CLASSICAL for node in graph.nodes):
        return
    known = graph.shapes
    unknown = [name for node in graph.nodes for name in node.output if name and name not in known]
    stated = {value.name: value for value in graph.model.graph.value_info}
    for value in reference.observed(graph, unknown):
        if value.name in stated:
            stated[value.name].CopyFrom(value)
        else:
            graph.model.graph.value_info.append(value)
    graph.changed()


def _refuse_unknown_shapes(graph: Graph) -> None:
    if graph.opset != opset.OPSET:
        raise Refused(f"the model cannot be brought to opset {opset.OPSET}: {'; '.join(graph.notes)}")
    shapes = graph.shapes
    problems = [
        f"{describe(node)}: the size of its result depends on the data"
        for node in graph.nodes
        if node.domain == "" and any(name and name not in shapes for name in node.output)
    ]
    refuse_all(problems, "export a model whose sizes are fixed by its input")
    for name, shape in shapes.items():
        elements(shape, name)
