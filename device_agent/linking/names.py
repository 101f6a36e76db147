"""Gives the names of a linked program two letters each; attributes of other objects keep theirs.

MicroPython keeps every name of a module as text, in the file and in RAM.
"""

import ast
import builtins
import io
import itertools
import socket
import ssl
import string
import types
from collections import Counter
from collections.abc import Iterator

from device_agent.linking.modules import bound_in

# Attributes of what MicroPython brings and CPython does not have: radio, clock, and streams of sockets.
_BOARD_ATTRIBUTES = frozenset(
    [
        "active",
        "config",
        "connect",
        "isconnected",
        "ifconfig",
        "status",
        "hostname",
        "country",
        "host",
        "settime",
        "reset",
        "mem_free",
        "mem_alloc",
        "ticks_ms",
        "ticks_us",
        "ticks_diff",
        "print_exception",
        "readinto",
        "write",
        "poll",
        "register",
        "modify",
        "close",
    ]
)
_TYPES = (
    *(value for value in vars(builtins).values() if isinstance(value, type)),
    io.BufferedRandom,
    io.RawIOBase,
    socket.socket,
    ssl.SSLContext,
    types.GeneratorType,
)
_FOREIGN = frozenset(name for kind in _TYPES for name in dir(kind)) | _BOARD_ATTRIBUTES


def shorten(units: list[list[ast.stmt]], keep: set[str]) -> dict[str, str]:
    """Rename in place what all units define, but for `keep`; returns {short name: what it stood for}."""
    program = [statement for unit in units for statement in unit]
    keep = keep | _FOREIGN | _by_text(program)
    globals_ = _short(_globals(program) - keep, program, lambda n: n.id if isinstance(n, ast.Name) else None)
    attributes = _short(
        _attributes(program) - keep, program, lambda n: n.attr if isinstance(n, ast.Attribute) else None
    )
    keywords = {n.arg for s in program for n in ast.walk(s) if isinstance(n, ast.keyword)}
    systems = {
        a.asname or a.name for s in program for n in ast.walk(s) if isinstance(n, ast.Import) for a in n.names
    }
    renamer = _Renamer(globals_, attributes, keywords, systems)
    for statement in program:
        renamer.visit(statement)
    meaning: dict[str, str] = {}
    for long, short in [*globals_.items(), *(("." + name, short) for name, short in attributes.items())]:
        meaning[short] = " ".join([meaning[short], long]) if short in meaning else long
    return meaning


def _by_text(program: list[ast.stmt]) -> set[str]:
    """Names that are asked for as strings."""
    found = set()
    for node in (n for s in program for n in ast.walk(s)):
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
                found.add(name)
    return found


def _globals(program: list[ast.stmt]) -> set[str]:
    found = set()
    for statement in program:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            case ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name for alias in aliases}
    return found


def _attributes(program: list[ast.stmt]) -> set[str]:
    """What classes here define: methods, class attributes, and what is assigned to `self`."""
    found = set()
    for one in (s for s in program if isinstance(s, ast.ClassDef)):
        for node in ast.walk(one):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
                    found.add(name)
        for member in one.body:
            match member:
                case ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                    found.add(name)
    return {name for name in found if not name.startswith("__")}


def _letters() -> Iterator[str]:
    # A capital first: no keyword, builtin or local name looks so.
    tails = string.ascii_lowercase + string.ascii_uppercase + string.digits
    return (a + b for a, b in itertools.product(string.ascii_uppercase, tails))


def _short(names: set[str], program: list[ast.stmt], text) -> dict[str, str]:  # type: ignore[no-untyped-def]
    uses = Counter(found for s in program for n in ast.walk(s) if (found := text(n)) in names)
    ordered = sorted(names, key=lambda name: (-uses[name], name))
    return dict(zip(ordered, _letters(), strict=False))


class _Renamer(ast.NodeTransformer):
    def __init__(
        self,
        globals_: dict[str, str],
        attributes: dict[str, str],
        keywords: set[str | None],
        systems: set[str],
    ) -> None:
        self.systems = systems
        self.globals = globals_
        self.attributes = attributes
        self.keywords = keywords

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.globals.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        if not (isinstance(node.value, ast.Name) and node.value.id in self.systems):
            node.attr = self.attributes.get(node.attr, node.attr)
        self.generic_visit(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        for alias in node.names:
            short = self.globals.get(alias.asname or alias.name)
            alias.asname = short or alias.asname
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.name = self.globals.get(node.name, node.name)
        node.bases = [self.visit(base) for base in node.bases]
        for member in node.body:
            match member:
                case ast.FunctionDef():
                    member.name = self.attributes.get(member.name, member.name)
                    self._function(member)
                case ast.Assign(targets=[ast.Name() as target]):
                    target.id = self.attributes.get(target.id, target.id)
                    member.value = self.visit(member.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self.globals.get(node.name, node.name)
        return self._function(node)

    def _function(self, node: ast.FunctionDef) -> ast.FunctionDef:
        _shorten_arguments(node, self.keywords)
        self.generic_visit(node)
        return node


def _shorten_arguments(node: ast.FunctionDef, keywords: set[str | None]) -> None:
    """Arguments that nobody names in a call become a, b, c; MicroPython keeps their names, but none of other locals."""
    inner = [n for n in ast.walk(node) if n is not node and isinstance(n, ast.FunctionDef | ast.Lambda)]
    taken = bound_in(node) | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    rebound = {name for scope in inner for name in bound_in(scope)}
    letters = (letter for letter in string.ascii_lowercase if letter not in taken)
    new = {}
    for argument in node.args.args:
        if argument.arg not in keywords and argument.arg not in rebound:
            new[argument.arg] = argument.arg if len(argument.arg) == 1 else next(letters)
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name) if name in new:
                part.id = new[name]
            case ast.arg(arg=name) if name in new:
                part.arg = new[name]
