"""Links the agent's modules into a few small ones, for boards that load them into RAM.

A unit becomes one module. The result does what the sources do; the sources stay readable.
"""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from device_agent.linking import modules as sources
from device_agent.linking.names import shorten
from device_agent.linking.shrink import Reach, fold, without_empty_bases

# What an application may use: it is not linked, so these names stay.
PUBLIC = frozenset(("predict", "label", "status", "consent", "clock", "ticks_ms", "utc"))


@dataclass(frozen=True)
class Unit:
    """Modules that become the one called `name`."""

    name: str
    modules: tuple[str, ...]


@dataclass
class Linked:
    """Python source of each unit, by its name, and what the short names stood for."""

    sources: dict[str, str]
    meaning: dict[str, str]


def link(root: Path, units: tuple[Unit, ...], roots: dict[str, str], beside: tuple[str, ...]) -> Linked:
    """Link units, each of which may use those before it.

    `roots`: unique dotted names that are wanted (all else may go), and what they are called in the result. `beside`:
    modules that stay as they are, whose names must not be touched.
    """
    modules = {name: sources.read(root, name) for unit in units for name in unit.modules}
    unit_of = {name: unit.name for unit in units for name in unit.modules}
    programs: dict[str, list[ast.stmt]] = {unit.name: [] for unit in units}
    for module in sources.in_order(modules):
        resolved = sources.Resolver(module, modules).visit(module.tree)
        programs[unit_of[module.name]] += resolved.body
    wanted = {_unique(dotted): short for dotted, short in roots.items()}
    kept = _shrink(programs, set(wanted), set(PUBLIC))
    for unit in units:
        kept[unit.name] = _imports(kept[unit.name]) + [s for s in kept[unit.name] if not _is_import(s)]
    _call(kept, wanted)
    foreign = set(PUBLIC) | set(wanted.values()) | _identifiers(root, beside)
    crossing = _crossing(units, kept)
    meaning = shorten(list(kept.values()), foreign)
    short = {long: name for name, longs in meaning.items() for long in longs.split(" ")}
    made = {}
    for unit in units:
        imports = [
            f"from {other} import {', '.join(sorted(short.get(name, name) for name in names))}"
            for other, names in crossing[unit.name].items()
        ]
        body = ast.unparse(ast.fix_missing_locations(ast.Module(kept[unit.name], [])))
        made[unit.name] = "\n".join([*imports, body, ""])
    return Linked(made, meaning)


def write_meaning(path: Path, linked: Linked) -> None:
    """Keep what the short names stood for, to read a traceback from a device."""
    path.write_text(json.dumps(linked.meaning, indent=0, sort_keys=True))


def _unique(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    return module.removeprefix(sources.PACKAGE + ".").replace(".", "_") + "__" + name


def _shrink(
    programs: dict[str, list[ast.stmt]], roots: set[str], public: set[str]
) -> dict[str, list[ast.stmt]]:
    everything = fold([statement for program in programs.values() for statement in program])
    unit_of = {id(node): unit for unit, program in programs.items() for s in program for node in ast.walk(s)}
    everything = without_empty_bases(Reach(everything, roots, public).kept())
    kept: dict[str, list[ast.stmt]] = {unit: [] for unit in programs}
    for statement in everything:
        unit = next(unit_of[id(node)] for node in ast.walk(statement) if id(node) in unit_of)
        kept[unit].append(statement)
    return kept


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _imports(program: list[ast.stmt]) -> list[ast.stmt]:
    """Each import once."""
    found = {ast.unparse(s): s for s in program if _is_import(s)}
    return [found[text] for text in sorted(found)]


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


def _crossing(units: tuple[Unit, ...], kept: dict[str, list[ast.stmt]]) -> dict[str, dict[str, set[str]]]:
    """For each unit, which names it takes from which other one."""
    home = {}
    for unit, program in kept.items():
        for statement in program:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                home[statement.name] = unit
            elif isinstance(statement, ast.Assign):
                home |= {
                    n.id: unit for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)
                }
    crossing: dict[str, dict[str, set[str]]] = {unit.name: {} for unit in units}
    order = [unit.name for unit in units]
    for unit, program in kept.items():
        before = order[: order.index(unit)]  # a later one is imported where it is needed, by its own name
        for node in (n for s in program for n in ast.walk(s) if isinstance(n, ast.Name)):
            if home.get(node.id) in before:
                crossing[unit].setdefault(home[node.id], set()).add(node.id)
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
