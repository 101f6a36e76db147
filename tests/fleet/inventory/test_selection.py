"""Label rules: what matches, what an absent label means, and errors that name the place."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.inventory.selection import RuleError, parse

FACTS = {"site": "berlin", "target": "raspberry-pi-4", "floor": "2", "room": "lab a"}


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("site=berlin", True),
        ("site=Berlin", False),
        ("site=berlin and target=raspberry-pi-4", True),
        ("site=berlin and target=raspberry-pi-5", False),
        ("site=paris or floor=2", True),
        ("site=berlin and floor=3 or floor=2", True),
        ("site=berlin and (floor=3 or floor=1)", False),
        ("not site=paris", True),
        ("not (site=berlin or floor=2)", False),
        ("site!=paris", True),
        ("site in (paris, berlin)", True),
        ("site not in (paris, berlin)", False),
        ("room='lab a'", True),
        ('room="lab a" AND site=berlin', True),
        ("absent=x", False),
        ("absent!=x", True),
        ("absent not in (x, y)", True),
    ],
)
def test_rules_match(rule: str, matches: bool) -> None:
    """The words of the rule mean what they say."""
    assert parse(rule).matches(FACTS) is matches


@pytest.mark.parametrize(
    ("rule", "position"),
    [
        ("", 1),
        ("site", 5),
        ("site=", 6),
        ("site=berlin floor=2", 13),
        ("site in berlin", 9),
        ("site in ()", 10),
        ("(site=berlin", 13),
        ("site=berlin)", 12),
        ("site=berlin and", 16),
        ("site ~ berlin", 6),
        ("and=3", 1),
        ("(" * 30 + "a=b" + ")" * 30, 22),
        ("a=b or " * 100 + "a=b", 501),
    ],
)
def test_errors_name_the_position(rule: str, position: int) -> None:
    """A person finds the mistake in a long rule."""
    with pytest.raises(RuleError) as caught:
        parse(rule)
    assert caught.value.position == position
    assert f"at character {position}" in str(caught.value)


@given(st.text(max_size=600))
def test_any_text_is_a_rule_or_a_rule_error(text: str) -> None:
    """Nothing a form can send does anything else."""
    with suppress(RuleError):
        assert parse(text).matches(FACTS) in (True, False)


names = st.sampled_from(["a", "b", "c"])
rules = st.recursive(
    st.builds(lambda key, value: f"{key}={value}", names, names),
    lambda inner: st.one_of(
        inner.map(lambda rule: f"not ({rule})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
    ),
    max_leaves=6,
)


@given(rules, st.dictionaries(names, names))
def test_rules_agree_with_python(rule: str, facts: dict[str, str]) -> None:
    """The same expression, evaluated by Python, gives the same answer."""
    expression = re.sub(r"(\w)=(\w)", r"(facts.get('\1') == '\2')", rule)
    assert parse(rule).matches(facts) is eval(expression, {"facts": facts})  # noqa: S307
