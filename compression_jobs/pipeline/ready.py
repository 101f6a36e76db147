"""Ready `.tflite` files: as they are for LiteRT and TFLM, through their quantised graph for other runtimes."""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from compression_jobs.pipeline.emit.table import EMITTERS, write_form
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.graph.facts_tflite import describe_tflite
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.graph.quant_memory import micro_head_bytes
from compression_jobs.pipeline.graph.tflite_reading import read
from compression_jobs.pipeline.passes.table import PASSES
from compression_jobs.pipeline.recipe import Recipe

INTEGERS = ("int8", "uint8")


class Made(NamedTuple):
    """An artifact before it is written; `output` is scale and zero point of an int8 output, `notes` are for people.

    `normalisation` is what its runtime does to features before it rounds them, as the signature says it.
    """

    data: bytes
    parameters: int
    macs: int
    output: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    normalisation: dict[str, Any] | None = None


def carry(model: Path, recipe: Recipe, runtime: str) -> Made:
    """The artifact of a ready `.tflite` for a runtime; raises Refused when a pass is asked for."""
    _refuse_passes(recipe)
    emitter, content, facts = EMITTERS[runtime], model.read_bytes(), describe_tflite(model)
    if emitter.format == "onnx" and facts["state_bytes"]:
        raise Refused(
            f"the model keeps {facts['state_bytes']} bytes from one run to the next, and onnxruntime keeps nothing",
            remedy="choose a litert, micropython or tflite-micro target; `convert --to onnx` writes each state as one more "
            "input and output, for programs that hand them over themselves",
        )
    data = content if emitter.format == "tflite" else emitter.quantized(from_tflite(content))
    return Made(data, facts["parameters"], facts["macs"], _output_scale(content, facts))


def convert(model: Path, form: str, out: Path) -> dict[str, int]:
    """Write a ready int8 `.tflite` in one of the `FORMS`; C becomes a folder, or a `.zip` if `out` is called so.

    Returns the bytes of the file, of the activations, and of what is kept between runs. Raises Refused. Runs in a limited
    child.
    """
    graph = from_tflite(model.read_bytes())
    data = write_form(graph, form)
    if form != "c" or out.suffix == ".zip":
        out.write_bytes(data)
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(out)
    return {
        "bytes": len(data),
        "activation_bytes": micro_head_bytes(graph),
        "state_bytes": graph.state_bytes,
        "states": len(graph.states),
    }


def memory_of(model: Path) -> int | None:
    """Bytes of the activations and of what is kept between runs; None for what is no graph of int8."""
    try:
        graph = from_tflite(model.read_bytes())
    except Refused:
        return None
    return micro_head_bytes(graph) + graph.state_bytes


def _output_scale(content: bytes, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Scale and zero point of the first output, before it is made real numbers; None for float models."""
    if not facts["quantised"]:
        return None
    model = read(content)
    index = model.outputs[0]
    makers = [node for node in model.nodes if index in node.outputs and node.kind == "DEQUANTIZE"]
    tensor = model.tensors[makers[0].inputs[0] if makers else index]
    if tensor.dtype not in INTEGERS or tensor.scales.size != 1:
        return None
    return {"scale": float(tensor.scales[0]), "zero_point": int(tensor.zero_points[0])}


def _refuse_passes(recipe: Recipe) -> None:
    names = [
        step.name for step in recipe.steps if step.name != "keep" and PASSES[step.name].kind != "transport"
    ]
    if names:
        raise Refused(
            f"a ready .tflite is deployed as it is; {', '.join(names)} start from ONNX",
            remedy="use the one step keep, or upload the ONNX export",
        )
