"""Label rules: `site=berlin and target in (raspberry-pi-4, raspberry-pi-5) and not floor=2`.

Grammar, loosest first: `or`, `and`, `not`, then a comparison (`=`, `!=`, `in (...)`, `not in (...)`) or parentheses.
A label that a device lacks equals nothing: `site=berlin` is false and `site!=berlin` is true.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CHARS = 500
MAX_DEPTH = 20

# What the server itself knows of every device; no label may take these names.
RESERVED = ("name", "target", "runtime", "chip")

_TOKEN = re.compile(r"\s*(?:(?P<quoted>\"[^\"]*\"|'[^']*')|(?P<word>[A-Za-z0-9_.:/-]+)|(?P<sign>!=|[=(),]))")
_KEYWORDS = ("and", "or", "not", "in")


class RuleError(ValueError):
    """A rule that cannot be read; `position` counts characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} at character {position}")
        self.position = position


@dataclass(frozen=True)
class Comparison:
    """One label compared with one or more values."""

    key: str
    values: tuple[str, ...]
    negated: bool = False

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether the facts of a device satisfy it."""
        return (facts.get(self.key) in self.values) != self.negated


@dataclass(frozen=True)
class Not:
    """The opposite of a rule."""

    rule: "Rule"

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether the facts of a device satisfy it."""
        return not self.rule.matches(facts)


@dataclass(frozen=True)
class All:
    """Every one of several rules."""

    rules: tuple["Rule", ...]

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether the facts of a device satisfy it."""
        return all(rule.matches(facts) for rule in self.rules)


@dataclass(frozen=True)
class Any:
    """At least one of several rules."""

    rules: tuple["Rule", ...]

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether the facts of a device satisfy it."""
        return any(rule.matches(facts) for rule in self.rules)


Rule = Comparison | Not | All | Any


@dataclass(frozen=True)
class _Token:
    text: str
    position: int
    quoted: bool = False

    @property
    def keyword(self) -> str:
        """The keyword or sign this is, or '' for a name or value."""
        if self.quoted:
            return ""
        if self.text.lower() in _KEYWORDS:
            return self.text.lower()
        return self.text if self.text in ("=", "!=", "(", ")", ",") else ""


def parse(text: str) -> Rule:
    """The rule in `text`; raises RuleError with the position of what cannot be read."""
    if len(text) > MAX_CHARS:
        raise RuleError(f"a rule has at most {MAX_CHARS} characters; it is cut", MAX_CHARS + 1)
    reader = _Reader(_tokens(text), len(text) + 1)
    rule = reader.either(0)
    reader.expect_end()
    return rule


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            blank = len(text[position:]) - len(text[position:].lstrip())
            raise RuleError(f"'{text[position + blank]}' is not understood", position + blank + 1)
        start = found.start(found.lastgroup or 0)
        quoted = found.lastgroup == "quoted"
        raw = text[start : found.end()]
        tokens.append(_Token(raw[1:-1] if quoted else raw, start + 1, quoted))
        position = found.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens; nesting is bounded, because a rule comes from a form."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self._tokens = tokens
        self._next = 0
        self._end = _Token("the end of the rule", end, quoted=True)

    def either(self, depth: int) -> Rule:
        parts = [self._both(depth)]
        while self._take("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def expect_end(self) -> None:
        token = self._peek()
        if token is not self._end:
            raise RuleError(f"'and' or 'or' was expected, not '{token.text}',", token.position)

    def _both(self, depth: int) -> Rule:
        parts = [self._one(depth)]
        while self._take("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self, depth: int) -> Rule:
        if depth > MAX_DEPTH:
            raise RuleError(f"more than {MAX_DEPTH} levels of 'not' and parentheses", self._peek().position)
        if self._take("not"):
            return Not(self._one(depth + 1))
        if self._take("("):
            inner = self.either(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Rule:
        key = self._value("a label name")
        if self._take("="):
            return Comparison(key, (self._value("a value"),))
        if self._take("!="):
            return Comparison(key, (self._value("a value"),), negated=True)
        negated = self._take("not")
        self._expect("in", "'=', '!=' or 'in'")
        return Comparison(key, self._values(), negated)

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        values = [self._value("a value")]
        while self._take(","):
            values.append(self._value("a value"))
        self._expect(")", "',' or ')'")
        return tuple(values)

    def _value(self, wanted: str) -> str:
        token = self._peek()
        if token is self._end or token.keyword:
            raise RuleError(f"{wanted} was expected, not '{token.text}',", token.position)
        self._next += 1
        return token.text

    def _expect(self, keyword: str, wanted: str = "") -> None:
        token = self._peek()
        if not self._take(keyword):
            raise RuleError(f"{wanted or repr(keyword)} was expected, not '{token.text}',", token.position)

    def _take(self, keyword: str) -> bool:
        if self._peek().keyword != keyword:
            return False
        self._next += 1
        return True

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end
