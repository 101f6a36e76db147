"""How far a rollout may go now: the next part of a wave that opens in parts."""

from django.db.models import Count, Q

from fleet.rollouts import evidence, pace, states, strategy
from fleet.rollouts.models import Delivery, Rollout, Wave

_State = Delivery.State


def next_part(rollout: Rollout, wave: Wave) -> int | None:
    """How many more devices may be offered now; None for all of the wave."""
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL).order_by()
    # A device that is away is not exposed to anything, and nobody waits for it.
    away = Q(state=_State.OFFERED, device__online=False)
    found = installs.aggregate(
        fleet=Count("pk", filter=~Q(state__in=(_State.CANCELLED, _State.SKIPPED))),
        at_work=Count("pk", filter=Q(state__in=states.ACTIVE) & ~away),
        answered=Count("pk", filter=Q(state__in=evidence.TELLING) | away),
        first=Count("pk", filter=Q(wave__number=1)),
    )
    if not strategy.read(rollout.strategy).is_paced(found["fleet"]):
        return None
    asked: int = found["answered"] + found["at_work"]
    if not found["at_work"]:
        upto = pace.may_be_asked(asked, found["first"], _is_proven(rollout))
        if upto != wave.asked_upto:
            wave.asked_upto = upto
            wave.save(update_fields=["asked_upto"])
    # A part that a rate or a budget has cut goes on while its first devices are at work.
    return max(0, wave.asked_upto - asked)


def _is_proven(rollout: Rollout) -> bool:
    """Whether the evidence would allow the next wave, which it then does for good."""
    verdicts = rollout.waves.exclude(verdict={}).values_list("verdict", flat=True)
    return any(v.get("e_ok", 0) >= v.get("e_ok_needed", float("inf")) for v in verdicts)
