"""Damages files at random and reads them as a worker does; runs in a limited child, which a file may take down."""

import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from compression_jobs.pipeline.dataset import describe_dataset
from compression_jobs.pipeline.errors import PipelineError
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.ingest import canonicalise

ODD_NUMBERS = (-(2**63), -1, 0, 1, 7, 2**16, 2**31 - 1, 2**31, 2**40, 2**62)


def survey(source: Path, seed: int, first: int, last: int, told: Path) -> None:
    """Read the damaged files number `first` to `last`; a line in `told` before and after each says how it went."""
    original, read = source.read_bytes(), READERS[source.suffix]
    for number in range(first, last):
        _tell(told, number, "began")
        content = damage(original, source.suffix, random.Random(f"{seed} {number}"))
        damaged = source.with_name(f"damaged{source.suffix}")
        damaged.write_bytes(content)
        try:
            read(damaged)
            _tell(told, number, "read")
        except PipelineError as error:
            _tell(told, number, "refused", str(error))
        except Exception as error:  # noqa: BLE001 - what a worker would not expect
            _tell(told, number, "broke", f"{type(error).__name__}: {error}"[:300])


def _tell(told: Path, number: int, outcome: str, words: str = "") -> None:
    with told.open("a") as lines:
        lines.write(json.dumps([number, outcome, words]) + "\n")


def _read_model(path: Path) -> None:
    describe_model(path)
    if path.suffix == ".onnx":
        canonicalise(path)


READERS: dict[str, Callable[[Path], Any]] = {
    ".onnx": _read_model,
    ".tflite": _read_model,
    ".npz": describe_dataset,
}


def damage(original: bytes, suffix: str, chance: random.Random) -> bytes:
    """The file with bytes changed, or with its meaning changed where the format is understood."""
    if suffix == ".onnx" and chance.random() < 0.6:
        return _damaged_graph(original, chance)
    if suffix == ".npz" and chance.random() < 0.6:
        return _damaged_archive(original, chance)
    return damaged_bytes(original, chance)


def damaged_bytes(original: bytes, chance: random.Random) -> bytes:
    """The file with some bytes changed, lost or doubled."""
    damaged = bytearray(original)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(damaged))
        kind = chance.random()
        if kind < 0.6:
            damaged[place] = chance.randrange(256)
        elif kind < 0.8:
            del damaged[place : place + chance.randint(1, 40)]
        else:
            damaged[place:place] = damaged[: chance.randint(1, 40)]
    return bytes(damaged)


def _damaged_archive(original: bytes, chance: random.Random) -> bytes:
    """The arrays damaged inside a zip that is sound."""
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            # The head of an array is where shapes and types are stated.
            head, rest = content[:128], content[128:]
            target.writestr(
                info.filename, (damaged_bytes(head, chance) if chance.random() < 0.7 else head) + rest
            )
    return out.getvalue()


def _damaged_graph(original: bytes, chance: random.Random) -> bytes:
    """The graph changed so that it is still a protobuf: this is what reaches checker, inference and runtime."""
    model = onnx.ModelProto.FromString(original)
    for _ in range(chance.randint(1, 3)):
        chance.choice(DAMAGES)(model, chance)
    return model.SerializeToString()


def _rewire(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    names = [name for each in model.graph.node for name in (*each.input, *each.output)]
    ends = node.input if node.input and chance.random() < 0.7 else node.output
    ends[chance.randrange(len(ends))] = chance.choice(names)


def _other_operator(model: onnx.ModelProto, chance: random.Random) -> None:
    schemas = [schema.name for schema in onnx.defs.get_all_schemas()]
    chance.choice(model.graph.node).op_type = chance.choice(schemas)


def _odd_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    entries = [entry for node in model.graph.node for entry in node.attribute]
    if not entries:
        return
    entry = chance.choice(entries)
    if entry.ints:
        entry.ints[chance.randrange(len(entry.ints))] = chance.choice(ODD_NUMBERS)
    else:
        entry.i = chance.choice(ODD_NUMBERS)


def _odd_dimension(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.graph.initializer and chance.random() < 0.7:
        tensor = chance.choice(model.graph.initializer)
        if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(ODD_NUMBERS)
        return
    for dim in chance.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape.dim:
        dim.dim_value = chance.choice(ODD_NUMBERS)


def _odd_type(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        chance.choice(model.graph.initializer).data_type = chance.randrange(28)


def _odd_constant(model: onnx.ModelProto, chance: random.Random) -> None:
    shapes = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    if shapes:
        tensor = chance.choice(shapes)
        tensor.raw_data = struct.pack("<q", chance.choice(ODD_NUMBERS)) + tensor.raw_data[8:]


def _lose(model: onnx.ModelProto, chance: random.Random) -> None:
    parts = chance.choice([model.graph.node, model.graph.initializer, model.graph.input, model.graph.output])
    if parts:
        del parts[chance.randrange(len(parts))]


def _double(model: onnx.ModelProto, chance: random.Random) -> None:
    model.graph.node.append(chance.choice(model.graph.node))


def _external(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        tensor = chance.choice(model.graph.initializer)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        places = ("/etc/passwd", "../secret", "damaged.onnx", "")
        tensor.external_data.add(key="location", value=chance.choice(places))


DAMAGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_rewire, _other_operator, _odd_attribute, _odd_dimension, _odd_type, _odd_constant),
    *(_lose, _double, _external),
)
