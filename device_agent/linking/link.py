"""Links the agent's modules into a few small ones, for boards that load them into RAM.

A unit becomes one module. The result does what the sources do; the sources stay readable.
"""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from device_agent.linking import modules as sources
from device_agent.linking.names import shorten
from device_agent.linking.parts import Forgetter, forgetting, place
from device_agent.linking.shrink import fold
from device_agent.linking.texts import Texts, reading

# What an application may use: it is not linked, so these names stay.
PUBLIC = frozenset(("predict", "label", "status", "consent", "clock", "ticks_ms", "utc"))


@dataclass(frozen=True)
class Unit:
    """Modules that become the one called `name`."""

    name: str
    modules: tuple[str, ...]


@dataclass
class Linked:
    """Python source of each unit, by its name, what the short names stood for, and its sentences as the first one reads them."""

    sources: dict[str, str]
    meaning: dict[str, str]
    texts: str


def link(
    root: Path,
    units: tuple[Unit, ...],
    roots: dict[str, str],
    parts: dict[str, tuple[str, ...]],
    beside: tuple[str, ...],
    elsewhere: dict[str, str],
) -> Linked:
    """Link units, each of which may use those before it.

    `roots`: unique dotted names that are wanted (all else may go), and what they are called in the result. `parts`:
    modules of the units that functions import when they need them, and the names they import; each becomes a file of
    its own with all that nobody else needs, and is forgotten after each import. `beside`: modules that stay as they
    are, whose names must not be touched. `elsewhere`: packages whose parts are put into another one.
    """
    modules = {name: sources.read(root, name) for unit in units for name in unit.modules}
    unit_of = {name: unit.name for unit in units for name in unit.modules}
    wanted = {sources.unique(dotted): short for dotted, short in roots.items()}
    entries = {part: {sources.unique(f"{part}.{name}") for name in names} for part, names in parts.items()}
    files = {part: _file_of(part, elsewhere) for part in parts}
    program, home = _statements(modules, unit_of, files, units[0].name)
    program = fold(program)
    texts = Texts()
    texts.take(program)
    homes = [next(home[id(node)] for node in ast.walk(s) if id(node) in home) for s in program]
    kept = place(program, homes, set(wanted), entries, set(PUBLIC))
    _call(kept, wanted)
    foreign = set(PUBLIC) | set(wanted.values()) | _identifiers(root, beside)
    order: list[str] = []
    for one in units:
        order += [one.name, *(part for part in parts if unit_of[part] == one.name)]
    crossing = _crossing(order, kept, set(parts), set(wanted.values()))
    meaning = shorten(list(kept.values()), foreign)
    short = {long: name for name, longs in meaning.items() for long in longs.split(" ")}
    written = {files.get(unit, unit): _source(kept[unit], crossing[unit], short) for unit in order}
    return Linked(written, meaning, texts.lines)


def _statements(
    modules: dict[str, sources.Module], unit_of: dict[str, str], files: dict[str, str], first: str
) -> tuple[list[ast.stmt], dict[int, str]]:
    """All modules as one program, and the unit of each node by its id; what the linker adds belongs to the first one."""
    program = forgetting() + reading()
    home = {id(statement): first for statement in program}
    for module in sources.in_order(modules):
        resolved = sources.Resolver(module, modules).visit(module.tree)
        program += Forgetter(files).visit(resolved).body
        home |= {id(node): unit_of[module.name] for s in resolved.body for node in ast.walk(s)}
    return program, home


def _file_of(part: str, elsewhere: dict[str, str]) -> str:
    package, _, name = part.rpartition(".")
    return f"{elsewhere.get(package, package)}.{name}"


def _source(body: list[ast.stmt], imported: dict[str, set[str]], short: dict[str, str]) -> str:
    """The Python source of a unit or part."""
    imports = [
        f"from {other} import {', '.join(sorted(short.get(name, name) for name in names))}"
        for other, names in imported.items()
    ]
    return "\n".join([*imports, ast.unparse(ast.fix_missing_locations(ast.Module(body, []))), ""])


def write_meaning(path: Path, linked: Linked) -> None:
    """Keep what the short names stood for, to read a traceback from a device."""
    path.write_text(json.dumps(linked.meaning, indent=0, sort_keys=True))


def _call(kept: dict[str, list[ast.stmt]], wanted: dict[str, str]) -> None:
    """Give the roots the names they are wanted under."""

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            node.id = wanted.get(node.id, node.id)
            return node

    for program in kept.values():
        for statement in program:
            Rename().visit(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    node.name = wanted.get(node.name, node.name)


def _crossing(
    order: list[str], kept: dict[str, list[ast.stmt]], parts: set[str], wanted: set[str]
) -> dict[str, dict[str, set[str]]]:
    """For each unit or part, which names it takes from which unit before it; parts are imported where they are needed.

    The last one has all that is wanted.
    """
    home = {}
    for unit, program in kept.items():
        for statement in program:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                home[statement.name] = unit
            elif isinstance(statement, ast.Assign):
                home |= {
                    n.id: unit for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)
                }
    crossing: dict[str, dict[str, set[str]]] = {unit: {} for unit in order}
    for unit, program in kept.items():
        before = [other for other in order[: order.index(unit)] if other not in parts]
        for node in (n for s in program for n in ast.walk(s) if isinstance(n, ast.Name)):
            if home.get(node.id) in before:
                crossing[unit].setdefault(home[node.id], set()).add(node.id)
    last = next(unit for unit in reversed(order) if unit not in parts)
    for name in wanted:
        if home[name] != last:
            crossing[last].setdefault(home[name], set()).add(name)
    return crossing


def _identifiers(root: Path, beside: tuple[str, ...]) -> set[str]:
    found = set()
    for name in beside:
        for node in ast.walk(ast.parse((root / (name.replace(".", "/") + ".py")).read_text())):
            match node:
                case (
                    ast.Name(id=text)
                    | ast.Attribute(attr=text)
                    | ast.FunctionDef(name=text)
                    | ast.ClassDef(name=text)
                ):
                    found.add(text)
                case ast.arg(arg=text):
                    found.add(text)
    return found
