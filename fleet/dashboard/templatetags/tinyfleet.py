"""How pages say things: bytes, times, shares with intervals, states, icons."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from fleet.accounts.roles import Role, allows
from fleet.dashboard import words
from fleet.telemetry.summaries import Accuracy

register = template.Library()

ICONS = "vendor/tabler-icons-3.51.0.svg"


@register.simple_tag
def icon(name: str, classes: str = "icon") -> SafeString:
    """One icon of the sprite; decoration only, so screen readers skip it."""
    return format_html(
        '<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>', classes, static(ICONS), name
    )


def _number(value: object) -> float | None:
    # A key that a measurement lacks reaches a filter as an empty text.
    return value if isinstance(value, int | float) else None


@register.filter
def size(value: object) -> str:
    """Bytes in binary units."""
    return words.size(_number(value))


@register.filter
def micros(value: object) -> str:
    """Microseconds in the unit a person would choose."""
    return words.micros(_number(value))


@register.filter
def count(value: object) -> str:
    """A count with thin groups, large ones shortened."""
    return words.count(_number(value))


@register.filter
def share(value: object) -> str:
    """A share as a percentage."""
    return words.share(_number(value))


@register.filter
def interval(value: Mapping[str, Any] | None) -> str:
    """`{value, low, high, n}` as '96.0 % (93.9-97.4 %, n = 250)'."""
    return words.interval(value)


@register.filter
def points(value: Mapping[str, Any] | None) -> str:
    """A drop `{value, low, high}` in percentage points."""
    return words.points(value)


@register.filter
def budget_share(used: object, budget: object) -> int:
    """How much of a budget is used, in per cent, at most 100 for the meter."""
    part, whole = _number(used), _number(budget)
    return min(100, round(100 * part / whole)) if part and whole else 0


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """A moment as a distance in words, with the exact UTC time as its title."""
    if moment is None:
        return "never"
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
        words.distance(moment, timezone.now()),
    )


@register.filter
def moment(value: str | datetime | None) -> datetime | None:
    """An ISO text from JSON as a moment, so that `ago` can say it."""
    return words.moment(value)


@register.filter
def label(value: str) -> str:
    """A state or kind as words."""
    return words.label(value)


@register.filter
def short(digest: str) -> str:
    """The first twelve characters of a digest."""
    return digest[:12]


@register.filter
def item(mapping: Mapping[Any, Any] | None, key: object) -> Any:
    """One entry of a mapping, for keys that are only known when the page is drawn."""
    return (mapping or {}).get(key)


@register.simple_tag
def state(value: str) -> SafeString:
    """A state as a chip: colour, glyph and word."""
    return format_html('<span class="state state-{}">{}</span>', words.tone(value), words.label(value))


@register.simple_tag(takes_context=True)
def can(context: template.Context, role: str) -> bool:
    """Whether the reader's role allows what `role` does."""
    user = context["request"].user
    return bool(user.is_authenticated and allows(user, Role(role)))


@register.filter
def tone(value: str) -> str:
    """Which tone a state is painted in."""
    return words.tone(value)


@register.filter
def waiting(rollout: Any) -> int:
    """How many deliveries of an annotated rollout are still under way."""
    return int(rollout.total - rollout.succeeded - rollout.stopped)


@register.filter
def pretty(value: Any) -> str:
    """JSON as a person reads it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def accuracy(found: Accuracy | None) -> str:
    """Labelled accuracy with its interval and n."""
    return words.interval(asdict(found) if found else None)


@register.filter
def sentence(text: str) -> str:
    """A capital letter and a full stop."""
    return words.sentence(text)


@register.filter
def unseen(field: BoundField) -> SafeString:
    """A field's value as hidden inputs without an id, which belongs to the same field where a person sees it."""
    return field.as_hidden({"id": False})
