"""Moves sentences out of linked code into one file on flash, from which they are read when somebody is to see them.

In RAM a sentence costs its length and an object; most are said once in the life of a device, or never.
"""

import ast
from collections.abc import Iterable

TEXTS = "texts.txt"
_READ = "linking__read_text"
_SHORTEST = 22  # below, the call costs as much as the sentence


def reading() -> list[ast.stmt]:
    """The function that reads the sentence at an offset of the file beside the module it is in."""
    source = f"""
def {_READ}(at):
    try:
        with open(__file__[:__file__.rfind('/') + 1] + '{TEXTS}') as file:
            file.seek(at)
            return file.readline()[:-1]
    except OSError:
        return 'text %d' % at
"""
    return ast.parse(source).body


class Texts(ast.NodeTransformer):
    """Puts calls in place of the sentences in functions; `lines` is what the file holds."""

    def __init__(self) -> None:
        self.lines = ""
        self.places: dict[str, int] = {}
        self.depth = 0

    def take(self, program: Iterable[ast.stmt]) -> None:
        """Replace in place."""
        for statement in program:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function's body; defaults are made when the module is loaded, so they stay."""
        if node.name == _READ:
            return node
        self.depth += 1
        node.body = [self.visit(statement) for statement in node.body]
        self.depth -= 1
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """A call, where the constant is a sentence in a function."""
        text = node.value
        if not self.depth or not isinstance(text, str) or len(text) < _SHORTEST or not _is_sentence(text):
            return node
        if text not in self.places:
            self.places[text] = len(self.lines)
            self.lines += text + "\n"
        return ast.Call(ast.Name(_READ, ast.Load()), [ast.Constant(self.places[text])], [])


def _is_sentence(text: str) -> bool:
    return " " in text and text.isascii() and text.isprintable()
