"""Verbs of experiments: two versions on random halves of a group, and what becomes of the better one."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.db import transaction

from fleet import events
from fleet.accounts.roles import Caller, Role, require
from fleet.errors import Conflict, NotFound, Refused
from fleet.inventory import services as inventory
from fleet.inventory.labels import facts_of
from fleet.inventory.models import Device, DeviceGroup
from fleet.registry.models import ModelVersion
from fleet.rollouts import candidates, engine, halves, notices, preparation, services, strategy, terms, versus
from fleet.rollouts.models import Experiment, Pair, Rollout
from fleet.rollouts.planning import RUNS_IT, LeftOut

State = Experiment.State
SIDES = (Experiment.Side.A, Experiment.Side.B)
_OVER = (State.STOPPED, State.PROMOTED)


@dataclass(frozen=True)
class Order:
    """What shall be compared, and where."""

    a: ModelVersion
    b: ModelVersion
    group: DeviceGroup
    app: str
    rules: strategy.Strategy
    terms: terms.Terms

    def half(self, side: str, only: frozenset[str] | None, experiment: int | None) -> preparation.Order:
        """What one half gets."""
        order = services.order_for(
            self.a if side == "a" else self.b, self.group, self.app, terms.for_halves(self.rules)
        )
        return preparation.Order(order.version, order.group, order.app, order.strategy, only, experiment)


@dataclass(frozen=True)
class Preview:
    """How many pairs there would be, and who is in neither half."""

    pairs: int
    alone: int
    left_out: list[LeftOut]
    sentence: str


def order_of(
    *,
    version_a: ModelVersion,
    version_b: ModelVersion,
    group: DeviceGroup,
    app: str = "main",
    rules: Any = None,
    wanted: Any = None,
) -> Order:
    """A checked order; raises Refused."""
    if version_a.pk == version_b.pk or version_a.model_id != version_b.model_id:
        raise Refused(
            f"{version_a} and {version_b} cannot be compared",
            remedy="Choose two versions of one model.",
        )
    return Order(version_a, version_b, group, app, strategy.read(rules), terms.read(wanted))


def preview(user: Caller, order: Order) -> Preview:
    """The dry run; who gets what is tossed for at the start."""
    require(user, Role.VIEWER)
    subjects, left_out = _subjects(order)
    pairs = halves.divide(subjects, random.Random(0))
    full = sum(bool(pair.b and pair.a) for pair in pairs)
    return Preview(full, len(pairs) - full, left_out, _what_it_can_show(full, order.terms.alpha))


def create(user: Caller, order: Order, now: datetime) -> Experiment:
    """Toss, and start a rollout to each half; raises Refused when no two devices can be compared."""
    require(user, Role.OPERATOR)
    subjects, left_out = _subjects(order)
    pairs = halves.divide(subjects, random.SystemRandom())
    if not any(pair.a and pair.b for pair in pairs):
        raise Refused(
            f"group '{order.group.slug}' has no two devices of one target that can run both versions",
            remedy="Compress both versions for its targets, or choose a larger group.",
            problems=[f"{left.device}: {left.reason}" for left in left_out[:50]],
        )
    with transaction.atomic():
        experiment = Experiment.objects.create(
            version_a=order.a,
            version_b=order.b,
            group=order.group,
            app=order.app,
            terms=order.terms.model_dump(),
            strategy=order.rules.model_dump(),
            dropped=[{"device": left.device, "reason": left.reason} for left in left_out],
            reason=_what_it_can_show(sum(bool(p.a and p.b) for p in pairs), order.terms.alpha),
            looked_at=now,
            created_at=now,
            created_by_id=user.pk,
        )
        _keep(experiment, pairs)
        for side in SIDES:
            _send(user, experiment, order, side, frozenset(getattr(p, side) for p in pairs) - {""})
        notices.about_experiment(experiment, "started")
    tell(experiment)
    return experiment


def by_id(pk: int) -> Experiment:
    """The experiment, or NotFound."""
    rows = Experiment.objects.select_related("version_a__model", "version_b__model", "group", "created_by")
    found = rows.filter(pk=pk).first()
    if found is None:
        raise NotFound(f"there is no experiment {pk}", remedy="Look at the list of experiments.")
    return found


def promote(user: Caller, experiment: Experiment, side: str, now: datetime, *, note: str = "") -> Experiment:
    """Bring one of the versions to the whole group by a rollout of its own; pressed twice, it is made once."""
    require(user, Role.OPERATOR)
    if side not in SIDES:
        raise Refused(f"'{side[:40]}' is neither half", remedy="Say a or b.")
    with transaction.atomic():
        _lock(experiment)
        version = experiment.version_a if side == "a" else experiment.version_b
        if experiment.state == State.PROMOTED:
            if experiment.winner == side:
                return experiment
            raise Conflict(
                f"experiment {experiment.pk} has promoted the other version",
                remedy=f"Roll {version} out by hand.",
            )
        end_halves(experiment, f"{version} was promoted", now)
        reason = services.because(f"{version} was promoted", note)
        _finish(experiment, State.PROMOTED, reason, now, winner=side)
        try:
            rules = experiment.strategy
            made = services.create(
                user, version=version, group=experiment.group, app=experiment.app, rules=rules
            )
            services.start(user, made, note=f"experiment {experiment.pk}")
            experiment.promotion = made
        except Refused as error:
            experiment.reason = f"{reason}; nothing was rolled out: {error.message}"
        experiment.save(update_fields=["promotion", "reason"])
        notices.about_experiment(experiment, "promoted")
    return experiment


def stop(
    user: Caller, experiment: Experiment, mode: Literal["keep", "revert"], now: datetime, *, note: str = ""
) -> Experiment:
    """End it without a winner. keep: each half keeps what it has; revert: both go back to what they ran before."""
    require(user, Role.OPERATOR)
    with transaction.atomic():
        _lock(experiment)
        if experiment.state == State.PROMOTED:
            raise Conflict(
                f"experiment {experiment.pk} is over", remedy="Roll back the rollout that it promoted."
            )
        if mode == "revert":
            for rollout in experiment.rollouts.all():
                services.abort(user, rollout, "revert", now=now, note=note)
        else:
            end_halves(experiment, "the experiment was stopped", now)
        if experiment.state not in _OVER:
            _finish(experiment, State.STOPPED, services.because("stopped by hand", note), now)
            notices.about_experiment(experiment, "stopped")
    return experiment


def possible_verbs(experiment: Experiment) -> list[str]:
    """Verbs that make sense now."""
    if experiment.state == State.PROMOTED:
        return []
    return ["promote"] if experiment.state == State.STOPPED else ["promote", "stop"]


def decide(experiment: Experiment, state: str, sentence: str, now: datetime, winner: str = "") -> None:
    """End a running experiment by evidence or time; nobody else is asked for either half."""
    end_halves(experiment, sentence, now)
    _finish(experiment, state, sentence, now, winner=winner)
    notices.about_experiment(experiment, state)


def end_halves(experiment: Experiment, sentence: str, now: datetime) -> None:
    """Stop what is still under way of both rollouts; devices keep what they have."""
    for rollout in experiment.rollouts.exclude(state__in=Rollout.ENDS):
        engine.stop(rollout, f"experiment {experiment.pk}: {sentence}", now)


def tell(experiment: Experiment) -> None:
    """Say that an experiment changed."""
    events.publish(f"experiment:{experiment.pk}", "rollouts")


def _finish(experiment: Experiment, state: str, reason: str, now: datetime, winner: str = "") -> None:
    experiment.state, experiment.reason, experiment.finished_at = state, reason, now
    experiment.winner = winner
    experiment.save(update_fields=["state", "reason", "finished_at", "winner"])
    tell(experiment)


def _lock(experiment: Experiment) -> None:
    experiment.refresh_from_db(from_queryset=Experiment.objects.select_for_update(no_key=True))


def _subjects(order: Order) -> tuple[list[halves.Subject], list[LeftOut]]:
    """Devices that can run either version and belong to nobody else, and the others with their reasons."""
    reasons: dict[str, str] = {}
    for side in SIDES:
        plan = preparation.draw_up(order.half(side, None, None))
        reasons |= {left.device: left.reason for left in plan.left_out if left.reason != RUNS_IT}
    taken = candidates.in_experiments(order.app)
    taken |= {pk: (f"rollout {rollout}", 0) for pk, (rollout, _) in candidates.busy(order.app).items()}
    subjects = []
    for device in inventory.members(order.group):
        if device.pk in taken:
            reasons.setdefault(device.name, f"{taken[device.pk][0]} is at work on it")
        if device.name not in reasons:
            site = facts_of(device).get("site", "")
            subjects.append(halves.Subject(device.name, device.target.slug, site))
    return subjects, [LeftOut(name, reasons[name]) for name in sorted(reasons)]


def _keep(experiment: Experiment, pairs: Sequence[halves.Pair]) -> None:
    pks = dict(Device.objects.values_list("name", "pk"))
    rows = [
        Pair(
            experiment=experiment,
            number=number,
            device_a_id=pks.get(pair.a),
            device_b_id=pks.get(pair.b),
            state=Pair.State.WAITING if pair.a and pair.b else Pair.State.OUT,
            reason="" if pair.a and pair.b else "the odd one of its target has no partner",
        )
        for number, pair in enumerate(pairs, start=1)
    ]
    Pair.objects.bulk_create(rows, batch_size=500)


def _send(user: Caller, experiment: Experiment, order: Order, side: str, names: frozenset[str]) -> None:
    half = order.half(side, names, experiment.pk)
    if not preparation.draw_up(half).devices:
        return  # everybody runs it already
    rollout = services.create(
        user,
        version=half.version,
        group=order.group,
        app=order.app,
        rules=half.strategy.model_dump(),
        half=(experiment, side),
    )
    services.start(user, rollout, note=f"half {side} of experiment {experiment.pk}")


def _what_it_can_show(pairs: int, alpha: float) -> str:
    needed = versus.least_pairs(alpha)
    some = f"{pairs} pair{'' if pairs == 1 else 's'} of devices"
    if pairs < needed:
        return f"{some} cannot decide anything: {needed} are needed, even if one version is clearly better in each"
    return f"{some}; {needed} decide when one version is clearly better in each"
