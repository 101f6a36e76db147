"""The demonstration's boards: the agent compiled for MicroPython, one process of the real VM each."""

import json
import shutil
import sys
from pathlib import Path

# The heap of the whole process: the agent's code, its data, its model and the application.
HEAP = "192k"
_START = "import sys; from device_agent.board_host import main; sys.exit(main(sys.argv[1:]))"


def machine() -> str | None:
    """The MicroPython VM beside this interpreter or on the path; None where there is none."""
    beside = Path(sys.executable).with_name("micropython")
    return str(beside) if beside.exists() else shutil.which("micropython")


def compiled(folder: Path) -> Path:
    """The folder of the agent as boards get it, compiled for this machine when it is not there yet."""
    from device_agent.compiled import compile_agent

    if not folder.exists():
        draft = folder.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        compile_agent(draft, "unix")
        draft.rename(folder)
    return folder


def command(state: Path, rows: Path, rate: float) -> list[str]:
    """The board: agent and application are one process, to be run in the folder of the compiled agent."""
    options = ["--state", str(state), "--rows", str(rows), "--rate", str(int(rate))]
    return [str(machine()), "-X", f"heapsize={HEAP}", "-c", _START, *options]


def lines_of(rows: Path, lines: Path) -> Path:
    """Write the rows of the field one a line, because a board holds one in memory at a time."""
    told = json.loads(rows.read_text())
    with lines.open("w") as file:
        for x, y in zip(told["x"], told["y"], strict=True):
            file.write(json.dumps({"x": x, "y": y}) + "\n")
    return lines
