"""Reads `.npz` files of strangers: no pickles, and nothing is unpacked before its declared size is believed.

An `.npz` is a zip of `.npy` files. Both layers state sizes, and both are checked against the limits and against
each other before a byte is inflated, so that neither a zip bomb nor an absurd header can take the memory.
"""

import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression_jobs.pipeline.errors import Refused

MAX_FILE_BYTES = 512 << 20
MAX_ARRAYS_BYTES = 1 << 30
MAX_ENTRIES = 32
MAX_RANK = 8
HEADER_BYTES = 10_000
KINDS = {"f": "floats", "i": "integers", "u": "integers", "b": "booleans", "U": "texts", "S": "texts"}
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SAVE_WAY = "save it with numpy.savez(path, x=..., y=...)"

DAMAGE = (ValueError, OSError, EOFError, KeyError, RuntimeError, SyntaxError, TypeError, OverflowError,
          RecursionError, MemoryError, IndexError, AttributeError, zipfile.BadZipFile, zlib.error,
          tokenize.TokenError)  # fmt: skip


def read_arrays(path: Path | str, wanted: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The arrays among `wanted` that the file holds; everything else in it is left unread."""
    path = Path(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Refused(f"the dataset has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are accepted")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, set(wanted))
            return {name: _read_array(archive, name, entry) for name, entry in entries.items()}
    except Refused:
        raise
    except zipfile.BadZipFile as error:
        raise Refused(f"this is not an .npz file ({error})", remedy=SAVE_WAY) from error
    except DAMAGE as error:
        raise Refused(f"the dataset is damaged: {str(error)[:300]}", remedy=SAVE_WAY) from error


def _entries(archive: zipfile.ZipFile, wanted: set[str]) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise Refused(f"the dataset holds {len(infos)} arrays; at most {MAX_ENTRIES} are accepted")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise Refused(f"the dataset holds {name} twice", remedy=SAVE_WAY)
        if name in wanted:
            found[name] = info
    claimed = sum(info.file_size for info in found.values())
    if claimed > MAX_ARRAYS_BYTES:
        raise Refused(f"its arrays claim {claimed} bytes unpacked; at most {MAX_ARRAYS_BYTES} are accepted")
    for name, info in found.items():
        if info.flag_bits & 1 or info.compress_type not in READ:
            raise Refused(f"{name} is encrypted or packed in an unusual way", remedy=SAVE_WAY)
    return found


def _read_array(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(file, max_header_size=HEADER_BYTES)
        expected = _expected_bytes(name, shape, dtype, info.file_size)
        content = file.read(expected)
        if len(content) != expected or file.read(1):
            raise Refused(
                f"{name} has {info.file_size} bytes, which do not match its shape {shape}", remedy=SAVE_WAY
            )
    array = np.frombuffer(content, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _expected_bytes(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], available: int) -> int:
    if dtype.hasobject:
        raise Refused(
            f"{name} is a pickled array, which could run any code", remedy="save it with a plain dtype"
        )
    if dtype.kind not in KINDS or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise Refused(f"{name} has dtype {dtype}; numbers or texts are needed")
    if len(shape) > MAX_RANK or any(not isinstance(size, int) or size < 0 for size in shape):
        raise Refused(f"{name} has an impossible shape {shape[:MAX_RANK]}")
    expected = prod(shape) * dtype.itemsize
    if expected > available:
        raise Refused(f"{name} has {available} bytes, too few for its shape {shape[:MAX_RANK]} of {dtype}")
    return expected
