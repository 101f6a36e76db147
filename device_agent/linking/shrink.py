"""Makes a flat program smaller: constants in place, branches of other interpreters, and what nothing reaches, gone."""

import ast
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
}
_INTERPRETER = "sys.implementation.name"
_SHORT_TEXT = 16  # longer ones are stored again in each place
_SMALL_INTEGER = 1 << 30
# A method that only says that a host forgot it; on a board AttributeError says the same.
_UNFILLED = "ports__Unfilled"


class Folder(ast.NodeTransformer):
    """Puts known constants in place, computes what they make, and drops branches that are never taken."""

    def __init__(self, constants: dict[str, ast.Constant]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A constant's value."""
        return (
            self.constants[node.id] if isinstance(node.ctx, ast.Load) and node.id in self.constants else node
        )

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """The value of two constants."""
        self.generic_visit(node)
        compute = _OPERATORS.get(type(node.op))
        match (node.left, node.right):
            case (ast.Constant(value=left), ast.Constant(value=right)) if compute and type(left) is type(
                right
            ):
                return ast.Constant(compute(left, right))
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Which interpreter this is."""
        self.generic_visit(node)
        if ast.unparse(node.left) != _INTERPRETER or len(node.ops) != 1:
            return node
        same = ast.unparse(node.comparators[0]) == "'micropython'"
        return ast.Constant(same == isinstance(node.ops[0], ast.Eq))

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        """The branch that is taken, where that is known."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return (node.body if node.test.value else node.orelse) or None
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """The value that is taken, where that is known."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node


def fold(program: list[ast.stmt]) -> list[ast.stmt]:
    """The program with its constants in place."""
    tree = ast.Module(program, [])
    constants: dict[str, ast.Constant] = {}
    while True:
        Folder(constants).visit(tree)
        stored = Counter(
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )
        found = {
            name: value
            for statement in tree.body
            if isinstance(statement, ast.Assign) and isinstance(value := statement.value, ast.Constant)
            if (name := assigned(statement))
            and stored[name] == 1
            and name not in constants
            and _is_small(value)
        }
        if not found:
            return tree.body
        constants |= found


def _is_small(value: ast.Constant) -> bool:
    """Whether a constant costs no more in each place than a name does."""
    if isinstance(value.value, str):
        return len(value.value) <= _SHORT_TEXT
    return not isinstance(value.value, int) or abs(value.value) < _SMALL_INTEGER


def assigned(statement: ast.stmt) -> str | None:
    """The one name a plain assignment gives a value to."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


class Reach:
    """What the program needs, from its roots on; attributes count by name alone."""

    def __init__(self, program: list[ast.stmt], roots: set[str], attributes: set[str]) -> None:
        self.program = program
        self.names = set(roots)
        self.attributes = set(attributes)
        self.seen: set[int] = set()
        while self._grow():
            pass

    def kept(self) -> list[ast.stmt]:
        """The statements that are needed, classes with the members that are."""
        made = []
        for statement in self.program:
            if not self._needs(statement):
                continue
            if isinstance(statement, ast.ClassDef):
                statement.body = [m for m in statement.body if self._needs_member(m)] or [ast.Pass()]
            made.append(statement)
        return made

    def _grow(self) -> bool:
        before = len(self.seen)
        for statement in self.program:
            if not self._needs(statement):
                continue
            if isinstance(statement, ast.ClassDef):
                for part in (*statement.bases, *statement.decorator_list):
                    self._take(part)
                for member in statement.body:
                    if self._needs_member(member):
                        self._take(member)
            else:
                self._take(statement)
        return len(self.seen) > before

    def _needs(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            return statement.name in self.names
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return any((alias.asname or alias.name) in self.names for alias in statement.names)
        name = assigned(statement)
        return name is None or name in self.names

    def _needs_member(self, member: ast.stmt) -> bool:
        if isinstance(member, ast.FunctionDef):
            if _is_unfilled(member):
                return False
            return member.name in self.attributes or member.name.startswith("__")
        name = assigned(member)
        return name is None or name in self.attributes

    def _take(self, part: ast.AST) -> None:
        if id(part) in self.seen:
            return
        self.seen.add(id(part))
        for node in ast.walk(part):
            match node:
                case ast.Name(id=name):
                    self.names.add(name)
                case ast.Attribute(attr=name):
                    self.attributes.add(name)
                case ast.Call(
                    func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
                ):
                    self.attributes.add(name)


def _is_unfilled(member: ast.FunctionDef) -> bool:
    match member.body:
        case [ast.Raise(exc=ast.Call(func=ast.Name(id=name)))]:
            return name.endswith(_UNFILLED)
    return False


def without_empty_bases(program: list[ast.stmt]) -> list[ast.stmt]:
    """The program without classes that hold nothing and are only derived from."""
    uses = Counter(n.id for s in program for n in ast.walk(s) if isinstance(n, ast.Name))
    classes = [s for s in program if isinstance(s, ast.ClassDef)]
    as_base = Counter(b.id for c in classes for b in c.bases if isinstance(b, ast.Name))
    empty = {
        c.name
        for c in classes
        if not c.bases and isinstance(c.body[0], ast.Pass) and 0 < as_base[c.name] == uses[c.name]
    }
    for one in classes:
        one.bases = [b for b in one.bases if not (isinstance(b, ast.Name) and b.id in empty)]
    return [s for s in program if not (isinstance(s, ast.ClassDef) and s.name in empty)]
