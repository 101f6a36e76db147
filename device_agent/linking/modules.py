"""Reads modules of the agent and makes one flat list of statements of them, every global name unique.

What only people and type checkers need goes: docstrings, annotations, assertions. A reference to another linked module
becomes a plain global name, so nothing is looked up in modules at run time.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

PACKAGE = "device_agent"
_ON_BOARDS = "sys.implementation.name == 'micropython'"
_Node = TypeVar("_Node", ast.FunctionDef, ast.ClassDef, ast.Module)
_SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Stripper(ast.NodeTransformer):
    """Removes docstrings, annotations and assertions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function without types."""
        node.returns = None
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """A class without its docstring."""
        return self._body(node)

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """A module without its docstring."""
        return self._body(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign | None:
        """A plain assignment, or nothing."""
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST | None:
        """Nothing: boards are compiled without them."""
        return None

    def _body(self, node: _Node) -> _Node:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node


@dataclass
class Module:
    """One source: its statements, and what its global names mean."""

    name: str
    tree: ast.Module
    imported: dict[str, str] = field(default_factory=dict)  # name here: dotted name elsewhere
    own: set[str] = field(default_factory=set)

    @property
    def prefix(self) -> str:
        """What makes its names unique."""
        return self.name.removeprefix(PACKAGE + ".").replace(".", "_") + "__"


def read(root: Path, name: str) -> Module:
    """The module of that dotted name below `root`."""
    path = root / (name.replace(".", "/") + ".py")
    module = Module(name, Stripper().visit(ast.parse(path.read_text())))
    for statement in _top_level(module.tree.body):
        _bind(module, statement)
    return module


def _top_level(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            handlers = statement.handlers if isinstance(statement, ast.Try) else []
            mine = isinstance(statement, ast.If) and ast.unparse(statement.test) == _ON_BOARDS
            yield from _top_level([*statement.body, *([] if mine else statement.orelse)])
            for handler in handlers:
                yield from _top_level(handler.body)
        yield statement


def _bind(module: Module, statement: ast.stmt) -> None:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            module.own.add(name)
        case ast.Assign(targets=targets):
            module.own |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        case ast.ImportFrom(module=source, names=names):
            module.imported |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in names}


def in_order(modules: dict[str, Module]) -> list[Module]:
    """Modules after all those they import."""
    ordered: list[Module] = []

    def place(module: Module) -> None:
        if module in ordered:
            return
        for dotted in sorted(module.imported.values()):
            source = dotted if dotted in modules else dotted.rpartition(".")[0]
            if source in modules and source != module.name:
                place(modules[source])
        ordered.append(module)

    for name in sorted(modules):
        place(modules[name])
    return ordered


class Resolver(ast.NodeTransformer):
    """Gives every global name of one module its unique one."""

    def __init__(self, module: Module, modules: dict[str, Module]) -> None:
        self.module = module
        self.modules = modules
        self.bound: list[set[str]] = []

    def unique(self, name: str, module: Module) -> str | None:
        """The unique name behind a global one; None for what is not linked (modules of the system, builtins)."""
        if name in module.own:
            return module.prefix + name
        dotted = module.imported.get(name)
        if dotted is None:
            return None
        source, _, symbol = dotted.rpartition(".")
        if source in self.modules:
            return self.unique(symbol, self.modules[source])
        return None if dotted in self.modules else module.prefix + name

    def _is_global(self, name: str) -> bool:
        return not any(name in names for names in self.bound)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """A global name."""
        found = self.unique(node.id, self.module) if self._is_global(node.id) else None
        return ast.Name(found, node.ctx) if found else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """A name of another linked module, or a common attribute."""
        if isinstance(node.value, ast.Name) and self._is_global(node.value.id):
            dotted = self.module.imported.get(node.value.id)
            if dotted in self.modules:
                found = self.unique(node.attr, self.modules[dotted])
                return ast.Name(found or node.attr, node.ctx)
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Nothing for linked modules; an import under the unique name for others."""
        kept = []
        for alias in node.names:
            dotted = f"{node.module}.{alias.name}"
            if self.bound:
                kept.append(alias)
            elif node.module not in self.modules and dotted not in self.modules:
                kept.append(ast.alias(alias.name, self.module.prefix + (alias.asname or alias.name)))
        return ast.ImportFrom(node.module, kept, 0) if kept else None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function: its defaults and decorators belong outside."""
        if not self.bound and node.name in self.module.own and not getattr(node, "is_method", False):
            node.name = self.module.prefix + node.name
        node.args.defaults = [self.visit(value) for value in node.args.defaults]
        node.args.kw_defaults = [value and self.visit(value) for value in node.args.kw_defaults]
        node.decorator_list = [self.visit(value) for value in node.decorator_list]
        self.bound.append(bound_in(node))
        node.body = [made for statement in node.body if (made := self.visit(statement)) is not None]
        self.bound.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """A class: what its body binds are attributes."""
        node.name = self.module.prefix + node.name
        node.bases = [self.visit(base) for base in node.bases]
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                statement.is_method = True  # type: ignore[attr-defined]
                self.visit(statement)
            elif isinstance(statement, ast.Assign):
                statement.value = self.visit(statement.value)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Other scopes."""
        if not isinstance(node, _SCOPES):
            return super().generic_visit(node)
        self.bound.append(bound_in(node))
        super().generic_visit(node)
        self.bound.pop()
        return node


def unique(dotted: str) -> str:
    """The unique name of what a dotted name says."""
    module, _, name = dotted.rpartition(".")
    return module.removeprefix(PACKAGE + ".").replace(".", "_") + "__" + name


def bound_in(scope: ast.AST) -> set[str]:
    """Names that a function, lambda or comprehension binds (with those of scopes inside it, which is harmless here)."""
    names: set[str] = set()
    for node in ast.walk(scope):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.FunctionDef(name=name) if node is not scope:
                names.add(name)
    return names
