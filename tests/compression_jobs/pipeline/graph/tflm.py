"""Runs `.tflite` files in TensorFlow Lite Micro: in a process of its own, because TFLM aborts on what it dislikes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

RUN = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
given = np.load(sys.argv[1])
answers = {}
for name in {key.partition(":")[0] for key in given.files}:
    content = given[f"{name}:model"].tobytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=4 << 20)
    inputs = [given[key] for key in sorted(given.files) if key.startswith(f"{name}:input")]
    rows = []
    for i in range(len(inputs[0])):
        for position, values in enumerate(inputs):
            interpreter.set_input(values[i : i + 1], position)
        interpreter.invoke()
        rows.append(interpreter.get_output(0))
    answers[name] = np.concatenate(rows)
np.savez(sys.argv[2], **answers)
"""


def answers(models: dict[str, tuple[bytes, list[np.ndarray]]], folder: Path) -> dict[str, Any]:
    """The first output of each model for its rows, one array an input; names without colons."""
    given = {}
    for name, (content, inputs) in models.items():
        given[f"{name}:model"] = np.frombuffer(content, np.uint8)
        given |= {f"{name}:input{position}": values for position, values in enumerate(inputs)}
    np.savez(folder / "given.npz", **given)
    paths = [str(folder / "given.npz"), str(folder / "answers.npz")]
    done = subprocess.run([sys.executable, "-c", RUN, *paths], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with np.load(folder / "answers.npz") as found:
        return dict(found)


RECORD = """
import sys
from tflite_micro.python.tflite_micro import runtime
for path in sys.argv[1:]:
    runtime.Interpreter.from_file(path, arena_size=4 << 20).print_allocations()
"""


def heads(contents: list[bytes], folder: Path) -> list[int]:
    """What TFLM records as the head of its arena for each model."""
    paths = [folder / f"{position}.tflite" for position in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", RECORD, *paths], capture_output=True, text=True, check=True)
    return [int(found) for found in re.findall(r"Arena allocation head (\d+)", done.stderr)]
