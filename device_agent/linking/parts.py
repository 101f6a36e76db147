"""Splits a linked program: what only a seldom needed part uses goes into that part's file.

A part is imported by the function that needs it and forgotten at once, so that its code goes with its last user.
"""

import ast
from collections import defaultdict

from device_agent.linking.modules import unique
from device_agent.linking.shrink import Reach, assigned, without_empty_bases

_FORGET = "linking__forget"
_ROOM = "linking__make_room"


def forgetting() -> list[ast.stmt]:
    """What is done before and after a part is imported, in the first unit: it goes where the holes are, and out of its package."""
    source = f"""
import gc
import sys
def {_ROOM}():
    gc.collect()
def {_FORGET}(package, name):
    del sys.modules[package + '.' + name]
    delattr(sys.modules[package], name)
"""
    return ast.parse(source).body


class Forgetter(ast.NodeTransformer):
    """Lets each function that imports from a part forget the module; `files` says what each part's module is called on the board."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.stmt]:
        """The import and, for a part, the calls around it."""
        if node.module not in self.files:
            return node
        package, _, name = self.files[node.module].rpartition(".")
        words: list[ast.expr] = [ast.Constant(package), ast.Constant(name)]
        for alias in node.names:
            alias.asname, alias.name = alias.asname or alias.name, unique(f"{node.module}.{alias.name}")
        node.module = self.files[node.module]
        before = ast.Expr(ast.Call(ast.Name(_ROOM, ast.Load()), [], []))
        return [before, node, ast.Expr(ast.Call(ast.Name(_FORGET, ast.Load()), words, []))]


def place(
    program: list[ast.stmt],
    homes: list[str],
    roots: set[str],
    parts: dict[str, set[str]],
    public: set[str],
) -> dict[str, list[ast.stmt]]:
    """What each unit and part holds of a program: `homes` says the unit of each statement.

    A statement goes into a part when that part's names reach it and nothing else does.
    """
    everywhere = Reach(program, roots.union(*parts.values()), public)
    # Methods count by name alone, so what any part calls, every class has.
    resident = Reach(program, roots, everywhere.attributes).names
    reached = {part: Reach(program, names, everywhere.attributes).names for part, names in parts.items()}
    home_of = {id(statement): home for statement, home in zip(program, homes, strict=True)}
    kept: dict[str, list[ast.stmt]] = defaultdict(list)
    imports = []
    for statement in without_empty_bases(everywhere.kept()):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports.append(statement)
            continue
        name = _name(statement)
        users = [part for part in parts if name in reached[part]] if name not in resident else []
        kept[users[0] if len(users) == 1 else home_of[id(statement)]].append(statement)
    return {unit: _imports(body, imports) + body for unit, body in kept.items()}


def _name(statement: ast.stmt) -> str | None:
    return statement.name if isinstance(statement, ast.FunctionDef | ast.ClassDef) else assigned(statement)


def _imports(body: list[ast.stmt], imports: list[ast.Import | ast.ImportFrom]) -> list[ast.stmt]:
    """Each import that the statements use, once."""
    used = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)}
    found = {
        ast.unparse(s): s for s in imports if any((alias.asname or alias.name) in used for alias in s.names)
    }
    return [found[text] for text in sorted(found)]
