"""The tick: one step of every rollout that is under way. The only writer of intents and of gates' decisions.

Any number of ticks may run at once: every change of state is a compare-and-set, and whoever wins does the work.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from fleet import events
from fleet.errors import FleetError
from fleet.rollouts import (
    consents,
    deliveries,
    evidence,
    field_evidence,
    gates,
    intents,
    joiners,
    notices,
    offering,
    preparation,
    progress,
    retries,
    shadows,
    states,
    strategy,
)
from fleet.rollouts.models import Decision, Delivery, Rollout, Wave

STEPS_A_TICK = 6

# Who goes back once nobody else is asked, and why. A device at work would finish the download: only a newer signed
# intent calls it back. One that waits for its next try, or was cancelled so, may run a version on the way.
_BETWEEN = Q(state__in=(Delivery.State.PENDING, Delivery.State.CANCELLED), offered_at__isnull=False)
_CALLED_BACK: dict[str, tuple[Q, str]] = {
    Rollout.State.ABORTED: (Q(state__in=states.ACTIVE) | _BETWEEN, "the rollout was aborted"),
    Rollout.State.ROLLING_BACK: (Q(), "the rollout is rolled back"),
}

logger = logging.getLogger(__name__)


def tick(now: datetime) -> int:
    """Start what is due, take each rollout one step on, sign again what must be; returns how much there was to do."""
    work = 0
    for rollout in _under_way(now):
        try:
            work += _steps(rollout, now)
        except Exception:
            # One rollout with damaged rows must not stop all others.
            logger.exception("rollout %s could not be taken on", rollout.pk)
    with transaction.atomic():
        offering.forget(now)
        return work + consents.take_back(now) + intents.renew(now)


def _steps(rollout: Rollout, now: datetime) -> int:
    """Go on while there is something to do, so that a wave's end and the next one's start need not wait for a tick each."""
    work = 0
    for _ in range(STEPS_A_TICK):
        done = step(rollout, now)
        work += done
        # The rest comes with the next tick, a second later.
        if not done or work >= deliveries.MOST_A_TICK:
            break
    return work


def step(rollout: Rollout, now: datetime) -> int:
    """One step of one rollout; returns how much there was to do."""
    if rollout.state == Rollout.State.SCHEDULED:
        return begin(rollout, now)
    if states.is_overdue(rollout, now):
        return _give_up(rollout, now)
    if rollout.state == Rollout.State.STARTING:
        return _write_plan(rollout, now)
    work = deliveries.end_for_lost_devices(rollout, now) + deliveries.time_out(rollout, now)
    work += deliveries.send_again_to_changed_devices(rollout, now)
    called = _call_back(rollout, now)
    # Some may go back while others are still asked.
    work += deliveries.offer(rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK), now)
    work += joiners.take_in(rollout, now)
    if rollout.state == Rollout.State.RUNNING:
        return work + retries.go_on(rollout, now) + _step_wave(rollout, now)
    if rollout.state == Rollout.State.ROLLING_BACK and not called:
        work += _finish_way_back(rollout, now)
    return work + called


def begin(rollout: Rollout, now: datetime) -> int:
    """Draw up the plan as things are now and keep it; a rollout that nobody can take ends with the reason."""
    others = Rollout.objects.filter(app=rollout.app, state=Rollout.State.STARTING)
    if others.exclude(pk=rollout.pk).exists():
        # Plans that are half written cannot be weighed against each other: it is a matter of seconds.
        return 0
    order = preparation.order_of(rollout)
    plan = preparation.draw_up(order)
    try:
        preparation.refuse_empty(order, plan)
    except FleetError as error:
        return _end(rollout, "abort", f"it could not start: {error.message}", now)
    with transaction.atomic():
        if not states.advance(rollout, "begin", reason=plan.evidence, state_since=now):
            return 0
        preparation.keep(rollout, plan, now)
        note(rollout, "start", plan.evidence)
    return plan.devices


def _write_plan(rollout: Rollout, now: datetime) -> int:
    """The next part of the plan; with the last one the rollout runs. A tick that dies here is made up for by the next."""
    with transaction.atomic():
        written = preparation.write_part(rollout, now)
        if not rollout.unwritten.exists():
            written += states.advance(rollout, "run", started_at=now)
    tell(rollout)
    return written


def stop(rollout: Rollout, sentence: str, now: datetime, decided_by_id: int | None = None) -> bool:
    """End a rollout where it stands: devices that have it keep it, those at work are called back, nobody else is asked."""
    with transaction.atomic():
        if not states.advance(rollout, "abort", reason=sentence, finished_at=now):
            return False
        rollout.unwritten.all().delete()
        _call_back(rollout, now)
        _close_waves(rollout, now)
        note(rollout, "abort", sentence, decided_by_id=decided_by_id)
    return True


def begin_way_back(rollout: Rollout, sentence: str, now: datetime) -> bool:
    """Turn a rollout round: nobody else is asked, and every device that was goes back to what it ran before."""
    with transaction.atomic():
        if not states.advance(rollout, "roll_back", reason=sentence, finished_at=None):
            return False
        _call_back(rollout, now)
        _close_waves(rollout, now)
        tell(rollout)
    return True


@transaction.atomic
def _call_back(rollout: Rollout, now: datetime) -> int:
    """Ask nobody else, and send the next devices back; how many, 0 when that is done. Ticks do what a verb began."""
    if rollout.state not in _CALLED_BACK:
        return 0
    which, why = _CALLED_BACK[rollout.state]
    back = deliveries.go_back(rollout, which, now, why, at_most=deliveries.MOST_A_TICK)
    return back + deliveries.cancel_pending(rollout, now, why)


def _close_waves(rollout: Rollout, now: datetime) -> None:
    # From rows: several may be RUNNING when canaries were extended.
    for wave in rollout.waves.exclude(state=Wave.State.PASSED):
        states.advance(wave, "fail", finished_at=now)


def note(rollout: Rollout, verb: str, sentence: str, wave: Wave | None = None, **more: object) -> None:
    """Keep a decision for ever."""
    Decision.objects.create(rollout=rollout, wave=wave, verb=verb, sentence=sentence, **more)
    notices.about(rollout, verb, sentence)
    tell(rollout)


def tell(rollout: Rollout) -> None:
    """Say that a rollout changed."""
    events.publish(f"rollout:{rollout.pk}", "rollouts", "overview")


def _give_up(rollout: Rollout, now: datetime) -> int:
    if rollout.state == Rollout.State.STARTING:
        why = "its plan is a day old and was never written whole"
    else:
        days = states.LIMITS[rollout.state][0].days
        why = f"it was {rollout.state.replace('_', ' ')} for {days} days, and nobody decided"
    return int(stop(rollout, f"aborted: {why}", now))


def _under_way(now: datetime) -> list[Rollout]:
    """Rollouts with something to do: at work, due, ended but owing a device its way back, or open to late joiners."""
    due = Q(state=Rollout.State.SCHEDULED) & (Q(start_at=None) | Q(start_at__lte=now))
    due |= Q(state=Rollout.State.AWAITING_APPROVAL)
    owed = Q(pk__in=Delivery.objects.filter(state__in=states.OPEN).order_by().values("rollout"))
    again = Q(pk__in=joiners.open_again(now).values("pk"))
    found = Rollout.objects.filter(due | Q(state__in=preparation.AT_WORK) | owed | again)
    return list(found.select_related("version__model", "group").order_by("pk"))


def _step_wave(rollout: Rollout, now: datetime) -> int:
    wave = rollout.waves.exclude(state=Wave.State.PASSED).order_by("number").first()
    if wave is None:
        return _succeed(rollout, now)
    if wave.state == Wave.State.PENDING:
        return _open(rollout, wave, now)
    if wave.state == Wave.State.RUNNING:
        return _watch(rollout, wave, now)
    if wave.state == Wave.State.SOAKING and _has_soaked(rollout, wave, now):
        return _judge(rollout, wave, now)
    return 0


def _open(rollout: Rollout, wave: Wave, now: datetime) -> int:
    if not wave.deliveries.exclude(state__in=Delivery.ENDS).exists():
        # An extended canary took everybody, or they all went away.
        return int(states.advance(wave, "pass", started_at=now, finished_at=now))
    if states.advance(wave, "open", started_at=now):
        tell(rollout)
        return 1 + _watch(rollout, wave, now)
    return 0


def _watch(rollout: Rollout, wave: Wave, now: datetime) -> int:
    """Stop at once on bad evidence, offer the next part of what is pending, and let the wave soak when all have ended."""
    installs = wave.deliveries.filter(kind=Delivery.Kind.INSTALL)
    if not installs.exclude(state__in=Delivery.ENDS).exists():
        # One that ended since this step began may have a try left.
        again = retries.go_on(rollout, now)
        if again:
            return again
        done = states.advance(wave, "soak", soaking_since=now)
        tell(rollout)
        return int(done)
    work = 0
    ended = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, state__in=evidence.TELLING).count()
    if ended != wave.verdict.get("looked_at", 0):
        work = _look(rollout, wave, now, ended)
    if rollout.state != Rollout.State.RUNNING:
        return work
    work += consents.ask(rollout, now)
    return work + offering.offer(rollout, installs, now, at_most=progress.next_part(rollout, wave))


def _look(rollout: Rollout, wave: Wave, now: datetime, ended: int) -> int:
    """A look in the middle of a wave, which can only stop the rollout."""
    verdict = _evaluate(rollout, wave, wave_is_over=False)
    wave.verdict = {**verdict.as_dict(), "looked_at": ended}
    Wave.objects.filter(pk=wave.pk).update(verdict=wave.verdict)
    if verdict.decision == "roll_back":
        _act(rollout, wave, verdict, now)
    # A look at thousands is a tick's work.
    return max(1, ended)


def _has_soaked(rollout: Rollout, wave: Wave, now: datetime) -> bool:
    seconds = strategy.read(rollout.strategy).soak_seconds
    return wave.soaking_since is None or now >= wave.soaking_since + timedelta(seconds=seconds)


def _judge(rollout: Rollout, wave: Wave, now: datetime) -> int:
    if field_evidence.take(wave) == field_evidence.AT_ONCE:
        # Reading reports is slow: the rest comes with the next tick.
        return deliveries.MOST_A_TICK
    verdict = _evaluate(rollout, wave, wave_is_over=True)
    if strategy.read(rollout.strategy).approve_waves and _others_wait(rollout, wave):
        verdict = gates.for_approval(verdict, wave.number + 1)
    return _act(rollout, wave, verdict, now)


def _others_wait(rollout: Rollout, wave: Wave) -> bool:
    later = rollout.deliveries.filter(wave__number__gt=wave.number, kind=Delivery.Kind.INSTALL)
    return later.filter(state=Delivery.State.PENDING).exists()


def _evaluate(rollout: Rollout, wave: Wave, wave_is_over: bool) -> gates.Verdict:
    seen = evidence.gather(rollout, wave, wave_is_over)
    return gates.evaluate(seen, gates.Limits.of(strategy.read(rollout.strategy)))


@transaction.atomic
def _act(rollout: Rollout, wave: Wave, verdict: gates.Verdict, now: datetime) -> int:
    """Do what the gate says, once, and keep why."""
    event = {"proceed": "pass", "wait": "extend", "roll_back": "fail", "hold": "hold"}[verdict.decision]
    ended = {} if event in ("extend", "hold") else {"finished_at": now}
    if not states.advance(wave, event, verdict=verdict.as_dict(), **ended):
        return 0
    if verdict.decision == "wait":
        deliveries.extend(wave, verdict.extend_by)
    elif verdict.decision == "hold":
        states.advance(rollout, "hold", reason=verdict.sentence)
    elif verdict.decision == "roll_back":
        begin_way_back(rollout, verdict.sentence, now)
    note(rollout, verdict.decision, verdict.sentence, wave, evidence=verdict.as_dict())
    return 1


def _succeed(rollout: Rollout, now: datetime) -> int:
    if shadows.is_shadow(rollout):
        return _end_shadow(rollout, now)
    # Who came since the last look still belongs to it.
    if joined := joiners.take_in(rollout, now, at_once=True):
        return joined
    installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL)
    back = rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK).values("device")
    runs = installs.filter(state=Delivery.State.SUCCEEDED).exclude(device__in=back).count()
    return _end(rollout, "succeed", f"{runs} of {installs.count()} devices run {rollout.version}", now)


def _end_shadow(rollout: Rollout, now: datetime) -> int:
    """What is desired of each device becomes again what it runs, so that a device that loses it gets it back."""
    with transaction.atomic():
        back = deliveries.go_back(
            rollout, Q(), now, "the shadow has been compared", at_most=deliveries.MOST_A_TICK
        )
        if back:
            return back
        return _end(rollout, "succeed", f"nothing was installed; {shadows.compare(rollout).sentence}", now)


def _finish_way_back(rollout: Rollout, now: datetime) -> int:
    if deliveries.open_ones(rollout).exists():
        return 0
    back = rollout.deliveries.filter(kind=Delivery.Kind.ROLL_BACK)
    done = back.filter(state__in=(Delivery.State.SUCCEEDED, Delivery.State.SKIPPED)).count()
    away = back.count() - done
    late = f"; {away} did not confirm yet and go back when they return" if away else ""
    return _end(rollout, "rolled_back", f"{rollout.reason}{late}", now)


def _end(rollout: Rollout, event: str, sentence: str, now: datetime) -> int:
    with transaction.atomic():
        if not states.advance(rollout, event, reason=sentence, finished_at=now):
            return 0
        note(rollout, event, sentence)
    return 1
