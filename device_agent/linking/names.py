"""Gives the names of a linked program short ones; attributes of other objects keep theirs."""

import ast
import builtins
import io
import socket
import ssl
import string
import types
from collections import Counter, defaultdict
from collections.abc import Iterable

from device_agent.linking.free_names import ROM_NAMES, defined, families, share
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
    """Rename in place what all units define, but for `keep`; returns {short name: all that it stands for}."""
    program = [statement for unit in units for statement in unit]
    keep = keep | _FOREIGN | _by_text(program)
    globals_, attributes = _short_globals(units, keep), _short_attributes(program, keep)
    keywords = {n.arg for s in program for n in ast.walk(s) if isinstance(n, ast.keyword)}
    renamer = _Renamer(globals_, attributes, keywords, _systems(program))
    for statement in program:
        renamer.visit(statement)
    meaning: dict[str, list[str]] = defaultdict(list)
    for long, short in [*globals_.items(), *(("." + name, short) for name, short in attributes.items())]:
        meaning[short].append(long)
    return {short: " ".join(longs) for short, longs in meaning.items()}


def _short_globals(units: list[list[ast.stmt]], keep: set[str]) -> dict[str, str]:
    """Modules share names that neither of them takes from the other."""
    program = [statement for unit in units for statement in unit]
    names = _globals(program) - keep
    nodes = [[n for s in unit for n in ast.walk(s)] for unit in units]
    used = [{n.id for n in unit if isinstance(n, ast.Name)} for unit in nodes]
    groups = [names & (_globals(unit) | ids) for unit, ids in zip(units, used, strict=True)]
    taken = keep.union(*used) | {n.arg for unit in nodes for n in unit if isinstance(n, ast.arg)}
    uses = Counter(n.id for unit in nodes for n in unit if isinstance(n, ast.Name))
    return share(groups, uses, [name for name in ROM_NAMES if name not in taken], set())


def _short_attributes(program: list[ast.stmt], keep: set[str]) -> dict[str, str]:
    """Objects of types that have nothing to do with each other share names."""
    found = set().union(*(defined(s) for s in program if isinstance(s, ast.ClassDef)))
    uses = Counter(n.attr for s in program for n in ast.walk(s) if isinstance(n, ast.Attribute))
    groups, elsewhere = families(program, found - keep)
    # What keeps its name and is defined here, or asked for as text, is nobody else's.
    taken = found & keep | _by_text(program)
    free = [name for name in ROM_NAMES if name not in taken]
    return share(groups, uses, free, elsewhere)


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


def _systems(statements: Iterable[ast.AST]) -> set[str]:
    """Modules of the system by the names under which these statements import them."""
    return {a.asname or a.name for s in statements if isinstance(s, ast.Import) for a in s.names}


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
            alias.name = self.globals.get(alias.name, alias.name)  # of a part
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
        outside = self.systems
        # What one function calls `app` may be a module, and an object of ours in any other.
        self.systems = outside | _systems(ast.walk(node))
        self.generic_visit(node)
        self.systems = outside
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
