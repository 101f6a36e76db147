"""Which change of state is allowed: one table each for rollout, wave and delivery, and the one way to make a change.

A change is a compare-and-set UPDATE; of several processes that try, one wins and does the work. Every state but an
end has a limit of time or waits for something that has one, so nothing waits for ever: see `LIMITS`.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from fleet.rollouts.conditions import A_DAY, A_MONTH
from fleet.rollouts.models import Delivery, Rollout, Wave

Table = dict[str, dict[str, str]]

_R = Rollout.State
_W = Wave.State
_D = Delivery.State

_GOING = (_R.RUNNING, _R.PAUSED, _R.HELD)
UNSTARTED: Final = (_R.DRAFT, _R.AWAITING_APPROVAL, _R.SCHEDULED)
NOBODY_ASKED: Final = (*UNSTARTED, _R.STARTING)

# event -> {old state: new state}
ROLLOUT: Final[Table] = {
    "ask_approval": {_R.DRAFT: _R.AWAITING_APPROVAL},
    "approve": {_R.AWAITING_APPROVAL: _R.SCHEDULED},
    "schedule": {_R.DRAFT: _R.SCHEDULED},
    "begin": {_R.SCHEDULED: _R.STARTING},
    "run": {_R.STARTING: _R.RUNNING},
    "pause": {_R.RUNNING: _R.PAUSED},
    "resume": {_R.PAUSED: _R.RUNNING},
    "hold": {_R.RUNNING: _R.HELD},
    "advance": {_R.HELD: _R.RUNNING},
    "retry": {_R.HELD: _R.RUNNING, _R.SUCCEEDED: _R.RUNNING},
    "join": {_R.SUCCEEDED: _R.RUNNING},
    "succeed": {_R.RUNNING: _R.SUCCEEDED},
    "roll_back": dict.fromkeys((*_GOING, _R.SUCCEEDED, _R.ABORTED), _R.ROLLING_BACK),
    "rolled_back": {_R.ROLLING_BACK: _R.ROLLED_BACK},
    "abort": dict.fromkeys((*NOBODY_ASKED, *_GOING), _R.ABORTED),
}

WAVE: Final[Table] = {
    "open": {_W.PENDING: _W.RUNNING},
    "soak": {_W.RUNNING: _W.SOAKING},
    "extend": {_W.SOAKING: _W.RUNNING, _W.HELD: _W.RUNNING},
    "pass": dict.fromkeys((_W.PENDING, _W.SOAKING, _W.HELD), _W.PASSED),
    "hold": {_W.SOAKING: _W.HELD},
    "fail": dict.fromkeys((_W.PENDING, _W.RUNNING, _W.SOAKING, _W.HELD), _W.FAILED),
}

# What a device reports may come in any order, because it retries and resumes.
_AT_WORK = (_D.OFFERED, _D.DOWNLOADING, _D.VERIFYING, _D.TESTING, _D.TRIAL)
OPEN: Final = (_D.PENDING, *_AT_WORK)
ACTIVE: Final = _AT_WORK

# From an end only these lead on: a new try under a new id, so that late words about the old one change nothing, and
# the late word of a device that was away while its way back timed out.
DELIVERY: Final[Table] = {
    "offer": {_D.PENDING: _D.OFFERED},
    **{str(state): dict.fromkeys((s for s in OPEN if s != state), state) for state in _AT_WORK},
    "succeeded": dict.fromkeys(OPEN, _D.SUCCEEDED),
    "rejected": dict.fromkeys(OPEN, _D.REJECTED),
    "failed": dict.fromkeys(OPEN, _D.FAILED),
    "rolled_back": dict.fromkeys(OPEN, _D.ROLLED_BACK),
    "time_out": dict.fromkeys(OPEN, _D.TIMED_OUT),
    "cancel": dict.fromkeys(OPEN, _D.CANCELLED),
    "supersede": dict.fromkeys(OPEN, _D.SUPERSEDED),
    "skip": {_D.PENDING: _D.SKIPPED},
    "retry": dict.fromkeys((_D.FAILED, _D.TIMED_OUT), _D.PENDING),
    "requeue": dict.fromkeys((*_AT_WORK, _D.SUCCEEDED), _D.PENDING),
    "confirm": {_D.TIMED_OUT: _D.SUCCEEDED},
}

# What ends a state that a person or a device left alone: (how long, the event that follows). Deliveries at work have
# the strategy's `delivery_timeout_s`; a running, soaking or rolling-back thing waits only for deliveries and soaks.
LIMITS: Final[dict[str, tuple[timedelta, str]]] = {
    _R.AWAITING_APPROVAL: (A_MONTH, "abort"),
    _R.STARTING: (A_DAY, "abort"),
    _R.PAUSED: (A_MONTH, "abort"),
    _R.HELD: (A_MONTH, "abort"),
    _D.PENDING: (A_MONTH, "time_out"),
}

Row = Rollout | Wave | Delivery


def table_of(row: Row) -> Table:
    """The table that governs a row."""
    if isinstance(row, Rollout):
        return ROLLOUT
    return WAVE if isinstance(row, Wave) else DELIVERY


def advance(row: Row, event: str, **fields: Any) -> bool:
    """Move a row as its table says and set `fields` with it; False when the table forbids it or another was first."""
    old = row.state
    new = table_of(row)[event].get(old)
    if new is None:
        return False
    if isinstance(row, Rollout):
        fields.setdefault("state_since", timezone.now())
    rows: Any = type(row)._default_manager
    if rows.filter(pk=row.pk, state=old).update(state=new, **fields) != 1:
        return False
    row.state = new
    for name, value in fields.items():
        setattr(row, name, value)
    return True


def possible(row: Row) -> list[str]:
    """The events that the row's present state allows."""
    return [event for event, moves in table_of(row).items() if row.state in moves]


def is_overdue(rollout: Rollout, now: datetime) -> bool:
    """Whether a rollout was left alone for longer than its state may last."""
    limit = LIMITS.get(rollout.state)
    return limit is not None and rollout.state_since is not None and now - rollout.state_since > limit[0]
