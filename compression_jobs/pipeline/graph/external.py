"""Weights kept outside the `.onnx` file, taken in safely.

A model names its data files itself, so a hostile one could name any file of the machine. Only the files
handed in are ever opened, by plain relative names, never through links, and only within their size.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import ModelProto, TensorProto

from compression_jobs.pipeline.errors import Refused, refuse_all
from compression_jobs.pipeline.graph.limits import MAX_MODEL_BYTES, tensor_bytes

WAY_OUT = "upload both, or export with external_data=False"

DataFiles = Mapping[str, Path | str] | Iterable[Path | str]


def by_name(data_files: DataFiles) -> dict[str, Path]:
    """Data files as `{location in the model: path}`; a plain list of paths goes by file name."""
    if isinstance(data_files, Mapping):
        return {name: Path(path) for name, path in data_files.items()}
    return {Path(path).name: Path(path) for path in data_files}


def files_beside(onnx_path: Path | str) -> list[Path]:
    """The `m.onnx.data` that torch's default exporter writes beside `m.onnx`, when it is there."""
    candidate = Path(f"{onnx_path}.data")
    return [candidate] if candidate.exists() else []


def inline(model: ModelProto, data_files: DataFiles) -> None:
    """Read all external weights of the model into the model; refuses whatever is not plainly safe."""
    tensors = [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    files = by_name(data_files)
    unsafe = [_unsafe(tensor) for tensor in tensors]
    refuse_all([text for text in unsafe if text], "export the model again; data files lie beside it")
    missing = sorted({location_of(t) for t in tensors if _file_for(t, files) is None})
    if missing:
        names = (
            " and ".join(missing) if len(missing) < 4 else f"{missing[0]} and {len(missing) - 1} more files"
        )
        raise Refused(f"weights are in {names}", remedy=WAY_OUT, problems=missing)
    _refuse_too_large(tensors)
    for tensor in tensors:
        path = _file_for(tensor, files)
        assert path is not None
        _take_in(tensor, path)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant tensor of a model without subgraphs: weights, and those in attributes."""
    yield from model.graph.initializer
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def location_of(tensor: TensorProto) -> str:
    """The file that an external tensor names."""
    return _entries(tensor).get("location", "")


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _unsafe(tensor: TensorProto) -> str | None:
    location = location_of(tensor)
    pure = PurePosixPath(location)
    plain = location and "\\" not in location and "\0" not in location
    if not plain or pure.is_absolute() or ".." in pure.parts or PureWindowsPath(location).drive:
        return f"{tensor.name}: its data file {location!r} is not a plain file name"
    return None


def _file_for(tensor: TensorProto, files: Mapping[str, Path]) -> Path | None:
    location = location_of(tensor)
    return files.get(location) or files.get(PurePosixPath(location).name)


def _refuse_too_large(tensors: list[TensorProto]) -> None:
    total = sum(tensor_bytes(tensor) for tensor in tensors)
    if total > MAX_MODEL_BYTES:
        raise Refused(f"its weights claim {total} bytes; at most {MAX_MODEL_BYTES} are accepted")


def _take_in(tensor: TensorProto, path: Path) -> None:
    size = tensor_bytes(tensor)
    offset, length = _number(tensor, "offset", 0), _number(tensor, "length", size)
    descriptor = _open(tensor, path)
    with os.fdopen(descriptor, "rb") as file:
        available = os.fstat(descriptor).st_size
        if length != size or offset + length > available:
            raise Refused(
                f"its data lies at bytes {offset} to {offset + length} of {path.name}, which has {available}; "
                f"its shape needs {size}",
                node=tensor.name,
                remedy="upload the data file that was written with this model",
            )
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _number(tensor: TensorProto, key: str, default: int) -> int:
    text = _entries(tensor).get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(f"the {key} of its data, {text[:40]!r}, is not a number", node=tensor.name)
    return int(text)


def _open(tensor: TensorProto, path: Path) -> int:
    try:
        # Not blocking: a named pipe would never open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "is a link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise Refused(f"its data file {path.name} {reason}", node=tensor.name, remedy=WAY_OUT) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"its data file {path.name} is not a plain file", node=tensor.name)
    return descriptor
