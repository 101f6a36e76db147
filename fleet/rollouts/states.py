"""Which change of state is allowed: one table each for rollout, wave and delivery, and the one way to make a change.

A change is a compare-and-set UPDATE; of several processes that try, one wins and does the work.
"""

from typing import Any, Final

from fleet.rollouts.models import Delivery, Rollout, Wave

Table = dict[str, dict[str, str]]

_R = Rollout.State
_W = Wave.State
_D = Delivery.State

_GOING = (_R.RUNNING, _R.PAUSED, _R.HELD)

# event -> {old state: new state}
ROLLOUT: Final[Table] = {
    "ask_approval": {_R.DRAFT: _R.AWAITING_APPROVAL},
    "approve": {_R.AWAITING_APPROVAL: _R.SCHEDULED},
    "schedule": {_R.DRAFT: _R.SCHEDULED},
    "begin": {_R.SCHEDULED: _R.RUNNING},
    "pause": {_R.RUNNING: _R.PAUSED},
    "resume": {_R.PAUSED: _R.RUNNING},
    "hold": {_R.RUNNING: _R.HELD},
    "advance": {_R.HELD: _R.RUNNING},
    "succeed": {_R.RUNNING: _R.SUCCEEDED},
    "roll_back": dict.fromkeys((*_GOING, _R.SUCCEEDED), _R.ROLLING_BACK),
    "rolled_back": {_R.ROLLING_BACK: _R.ROLLED_BACK},
    "abort": dict.fromkeys((_R.DRAFT, _R.AWAITING_APPROVAL, _R.SCHEDULED, *_GOING), _R.ABORTED),
}

WAVE: Final[Table] = {
    "open": {_W.PENDING: _W.RUNNING},
    "soak": {_W.RUNNING: _W.SOAKING},
    "extend": {_W.SOAKING: _W.RUNNING, _W.HELD: _W.RUNNING},
    "pass": dict.fromkeys((_W.PENDING, _W.SOAKING, _W.HELD), _W.PASSED),
    "hold": {_W.SOAKING: _W.HELD},
    "fail": dict.fromkeys((_W.PENDING, _W.RUNNING, _W.SOAKING, _W.HELD), _W.FAILED),
}

# What a device reports may come in any order, because it retries and resumes; ends are final.
_AT_WORK = (_D.OFFERED, _D.DOWNLOADING, _D.VERIFYING, _D.TESTING, _D.TRIAL)
_OPEN = (_D.PENDING, *_AT_WORK)
ACTIVE: Final = _AT_WORK

DELIVERY: Final[Table] = {
    "offer": {_D.PENDING: _D.OFFERED},
    **{str(state): dict.fromkeys((s for s in _OPEN if s != state), state) for state in _AT_WORK},
    "succeeded": dict.fromkeys(_OPEN, _D.SUCCEEDED),
    "rejected": dict.fromkeys(_OPEN, _D.REJECTED),
    "failed": dict.fromkeys(_OPEN, _D.FAILED),
    "rolled_back": dict.fromkeys(_OPEN, _D.ROLLED_BACK),
    "time_out": dict.fromkeys(_AT_WORK, _D.TIMED_OUT),
    "cancel": dict.fromkeys(_OPEN, _D.CANCELLED),
    "supersede": dict.fromkeys(_OPEN, _D.SUPERSEDED),
    "skip": {_D.PENDING: _D.SKIPPED},
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
