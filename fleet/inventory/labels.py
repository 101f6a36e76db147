"""Labels: short texts by name, as people write them on devices and as rules read them."""

import re
from collections.abc import Mapping

from fleet.errors import Refused
from fleet.inventory.models import Device
from fleet.inventory.selection import RESERVED

MAX_LABELS = 40
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,63}")
_VALUE = re.compile(r"[^\x00-\x1f\"']{1,120}")


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, when every one can be written in a rule; otherwise Refused with all problems at once."""
    problems = [problem for name, value in labels.items() if (problem := _problem(name, value))]
    if len(labels) > MAX_LABELS:
        problems.append(f"a device has at most {MAX_LABELS} labels, not {len(labels)}")
    if problems:
        raise Refused(
            problems[0],
            remedy="Names: letters, digits and _ . : / -; values: 1 to 120 characters without quotes.",
            problems=problems,
        )
    return dict(labels)


def facts_of(device: Device) -> dict[str, str]:
    """What label rules see of a device: its labels and what the server itself knows."""
    known = {
        "name": device.name,
        "target": device.target.slug,
        "runtime": device.target.runtime,
        "chip": device.target.chip,
    }
    return {**device.labels, **known}


def _problem(name: str, value: str) -> str:
    if name in RESERVED:
        return f"label '{name}' is set by the server itself"
    if name.lower() in ("and", "or", "not", "in") or not _NAME.fullmatch(name):
        return f"'{name[:80]}' is no label name"
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        return f"the value of label '{name}' is not a short text"
    return ""
