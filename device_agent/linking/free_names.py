"""Names that cost nothing on a board, and who may share one.

MicroPython keeps every name of a module as text, in the file and in RAM, but for those that every firmware holds in ROM.
"""

import ast
import itertools
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

# With a fixed number in .mpy files of version 6 (py/makeqstrdata.py), without those that mean something to a compiler.
_NUMBERED = [
    "abs",
    "all",
    "any",
    "append",
    "args",
    "bool",
    "builtins",
    "bytearray",
    "bytes",
    "callable",
    "chr",
    "classmethod",
    "clear",
    "close",
    "copy",
    "count",
    "dict",
    "dir",
    "divmod",
    "end",
    "endswith",
    "eval",
    "exec",
    "extend",
    "find",
    "format",
    "from_bytes",
    "get",
    "getattr",
    "globals",
    "hasattr",
    "hash",
    "id",
    "index",
    "insert",
    "int",
    "isalpha",
    "isdigit",
    "isinstance",
    "islower",
    "isspace",
    "issubclass",
    "isupper",
    "items",
    "iter",
    "join",
    "key",
    "keys",
    "len",
    "list",
    "little",
    "locals",
    "lower",
    "lstrip",
    "main",
    "map",
    "next",
    "object",
    "open",
    "ord",
    "pop",
    "popitem",
    "pow",
    "print",
    "read",
    "readinto",
    "readline",
    "remove",
    "replace",
    "repr",
    "reverse",
    "rfind",
    "rindex",
    "round",
    "rsplit",
    "rstrip",
    "send",
    "sep",
    "set",
    "setattr",
    "setdefault",
    "sort",
    "sorted",
    "split",
    "start",
    "startswith",
    "staticmethod",
    "step",
    "stop",
    "str",
    "strip",
    "sum",
    "throw",
    "to_bytes",
    "tuple",
    "type",
    "update",
    "upper",
    "value",
    "values",
    "write",
    "zip",
    "ArithmeticError",
    "AssertionError",
    "BaseException",
    "EOFError",
    "Ellipsis",
    "GeneratorExit",
    "ImportError",
    "IndentationError",
    "IndexError",
    "KeyboardInterrupt",
    "LookupError",
    "NameError",
    "NoneType",
    "OverflowError",
    "StopIteration",
    "SyntaxError",
    "SystemExit",
    "ZeroDivisionError",
]
# Of modules that every port brings along: a text in the file, none in RAM.
_OF_MODULES = (
    "pi cos tan exp log sub bin oct hex off aes md5 EIO sqrt sha1 acos asin atan ceil fabs fmod modf sinh "
    "cosh tanh mem8 INT8 bind recv seed mem16 mem32 INT16 INT32 UINT8 EPERM EBADF floor trunc frexp ldexp "
    "isinf isnan atan2 match crc32 ipoll UINT16 UINT32 ENOENT EAGAIN EINVAL EACCES EEXIST EISDIR ENODEV "
    "ENOMEM listen accept search choice modify randint uniform heapify popleft degrees radians heappop "
    "discard isfinite copysign calcsize partition"
)
ROM_NAMES = [*_NUMBERED, *_OF_MODULES.split()]


def two_letters() -> Iterator[str]:
    """Names in the order of their price; a capital first: no keyword, builtin or local name looks so."""
    tails = string.ascii_lowercase + string.ascii_uppercase + string.digits
    return (a + b for a, b in itertools.product(string.ascii_uppercase, tails))


def share(groups: Iterable[set[str]], uses: Counter[str], free: list[str], dear: set[str]) -> dict[str, str]:
    """A new name for each name in the groups, so that no group holds a new name twice.

    `free` is taken first, but not for the names in `dear`.
    """
    beside: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        for name in group:
            beside[name] |= group
    given: dict[str, str] = {}
    for name in sorted(beside, key=lambda name: (-uses[name], name)):
        taken = {given.get(other) for other in beside[name]}
        choice = itertools.chain([] if name in dear else free, two_letters())
        given[name] = next(new for new in choice if new not in taken)
    return given


def families(program: list[ast.stmt], names: set[str]) -> tuple[list[set[str]], set[str]]:
    """Which of the attributes `names` stand together in objects, and which of them in those of types from elsewhere."""
    classes = {s.name: s for s in program if isinstance(s, ast.ClassDef)}
    groups, elsewhere = [], set()
    for one in classes.values():
        group: set[str] = set()
        lines, known = [one], True
        while lines:
            line = lines.pop()
            group |= defined(line) & names
            for base in line.bases:
                parent = classes.get(base.id) if isinstance(base, ast.Name) else None
                known = known and parent is not None
                lines += [parent] if parent is not None else []
        groups.append(group)
        elsewhere |= set() if known else group
    return groups, elsewhere


def defined(one: ast.ClassDef) -> set[str]:
    """What a class defines: methods, class attributes, and what is assigned to `self`."""
    found = set()
    for node in ast.walk(one):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
                found.add(name)
    for member in one.body:
        match member:
            case ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
    return {name for name in found if not name.startswith("__")}
