"""What experiments see: each pair is watched for a while once both run their version, and counted once."""

import logging
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db import transaction

from fleet.errors import FleetError
from fleet.inventory.models import Device, DeviceApp
from fleet.rollouts import experiments, terms, versus
from fleet.rollouts.models import Delivery, Experiment, Pair, Rollout
from fleet.telemetry import comparisons

LOOKED_EVERY = timedelta(seconds=10)
COUNTED_AT_ONCE = 250
_REFUSED = (Delivery.State.ROLLED_BACK, Delivery.State.REJECTED)
_GONE_WRONG = (Rollout.State.ROLLING_BACK, Rollout.State.ROLLED_BACK, Rollout.State.ABORTED)

logger = logging.getLogger(__name__)


def tick(now: datetime) -> int:
    """Look at every running experiment that was not looked at for a while; returns how many there were."""
    due = Experiment.objects.filter(state=Experiment.State.RUNNING, looked_at__lte=now - LOOKED_EVERY)
    done = 0
    for experiment in due.select_related("version_a__model", "version_b__model", "group", "created_by"):
        try:
            done += _look(experiment, now)
        except Exception:
            # One experiment with damaged rows must not stop all others.
            logger.exception("experiment %s could not be taken on", experiment.pk)
    return done


def _look(experiment: Experiment, now: datetime) -> int:
    rules = terms.read(experiment.terms)
    with transaction.atomic():
        running = Experiment.objects.filter(pk=experiment.pk, state=Experiment.State.RUNNING)
        # Of several ticks one looks.
        if not running.filter(looked_at=experiment.looked_at).update(looked_at=now):
            return 0
        _Watch(experiment, rules, now).take()
        _conclude(experiment, rules, now)
    if experiment.state == Experiment.State.DECIDED and rules.promote == "winner":
        _promote(experiment, now)
    return 1


class _Watch:
    """One look at the pairs of an experiment."""

    def __init__(self, experiment: Experiment, rules: terms.Terms, now: datetime) -> None:
        self.experiment, self.rules, self.now = experiment, rules, now
        self.versions = {"a": experiment.version_a_id, "b": experiment.version_b_id}
        self.rollouts = {rollout.side: rollout for rollout in experiment.rollouts.all()}
        rows = DeviceApp.objects.filter(app=experiment.app, device__state=Device.State.ACTIVE)
        runs = rows.filter(artifact__version__in=self.versions.values())
        self.runs = {
            device: (version, sha256)
            for device, version, sha256 in runs.values_list(
                "device_id", "artifact__version_id", "artifact_sha256"
            )
        }
        self.ended = {side: self._ended(rollout) for side, rollout in self.rollouts.items()}

    def take(self) -> None:
        """Move every pair as far as it goes now."""
        pairs = self.experiment.pairs.exclude(state__in=(Pair.State.COUNTED, Pair.State.OUT))
        open_ones = list(pairs.order_by("number"))
        before = {pair.pk: pair.state for pair in open_ones}
        for pair in open_ones:
            self._follow(pair)
        wait = timedelta(seconds=self.rules.observe_seconds)
        self._count(self._some([p for p in open_ones if p.since and self.now >= p.since + wait]))
        changed = [pair for pair in open_ones if pair.state != before[pair.pk]]
        fields = ["state", "since", "value_a", "value_b", "lost", "reason"]
        Pair.objects.bulk_update(changed, fields, batch_size=500)

    def _some(self, due: list[Pair]) -> list[Pair]:
        """Those that are looked at now; of many that wait for labels, others with each look."""
        due = [pair for pair in due if pair.state == Pair.State.WATCHED]
        parts = -(-len(due) // COUNTED_AT_ONCE) or 1
        turn = int(self.now.timestamp() / LOOKED_EVERY.total_seconds())
        return due[turn % parts :: parts]

    def _ended(self, rollout: Rollout) -> dict[int, str]:
        """Devices whose delivery is over without the version, and how it ended."""
        installs = rollout.deliveries.filter(kind=Delivery.Kind.INSTALL, state__in=Delivery.ENDS)
        found = dict(installs.exclude(state=Delivery.State.SUCCEEDED).values_list("device_id", "state"))
        if rollout.is_over:
            return found
        # Those that failed or timed out may have a try left.
        return {device: state for device, state in found.items() if state in _REFUSED}

    def _follow(self, pair: Pair) -> None:
        lost = [side for side in "ab" if self._has_lost(pair, side)]
        out = [side for side in "ab" if self._is_out(pair, side)]
        if lost:
            pair.state, pair.lost = Pair.State.COUNTED, lost[0] if len(lost) == 1 else ""
            pair.reason = f"version {' and '.join(lost)} could not be kept"
            if len(lost) == 2:
                pair.state = Pair.State.OUT
        elif out:
            pair.state, pair.reason = Pair.State.OUT, f"the device of half {out[0]} does not run its version"
        elif pair.state == Pair.State.WAITING and self._runs(pair, "a") and self._runs(pair, "b"):
            pair.state, pair.since = Pair.State.WATCHED, self.now

    def _has_lost(self, pair: Pair, side: str) -> bool:
        state = self.ended.get(side, {}).get(_device(pair, side))
        return state in (*_REFUSED, Delivery.State.FAILED)

    def _is_out(self, pair: Pair, side: str) -> bool:
        if self._runs(pair, side):
            return False
        rollout = self.rollouts.get(side)
        still_comes = rollout is not None and not rollout.is_over
        return pair.state == Pair.State.WATCHED or not still_comes

    def _runs(self, pair: Pair, side: str) -> bool:
        return self.runs.get(_device(pair, side), (0, ""))[0] == self.versions[side]

    def _count(self, pairs: Sequence[Pair]) -> None:
        questions = [
            comparisons.Question(device, "", self.runs[device][1], pair.since)
            for pair in pairs
            if pair.since is not None
            for device in (_device(pair, "a"), _device(pair, "b"))
        ]
        seen = comparisons.compare(self.experiment.app, questions) if questions else {}
        for pair in pairs:
            values = [self._value(seen.get(_device(pair, side))) for side in "ab"]
            # Too little so far: looked at again, until the experiment ends.
            if None not in values:
                pair.value_a, pair.value_b = values
                pair.state = Pair.State.COUNTED

    def _value(self, found: comparisons.Comparison | None) -> float | None:
        side = found.after if found else None
        if side is None:
            return None
        counts, metric = side.counts, self.rules.metric
        if (counts.labelled if metric == "accuracy" else counts.n) < self.rules.min_count:
            return None
        if metric == "accuracy":
            return counts.correct / counts.labelled
        if metric == "errors":
            return counts.errors / counts.n
        return side.latency.percentile(0.5)


def differences(pairs: Iterable[Pair], metric: str) -> list[float]:
    """By how much b is better in each counted pair; infinite where a version could not be kept."""
    found = []
    for pair in pairs:
        if pair.lost:
            found.append(math.inf if pair.lost == "a" else -math.inf)
        elif pair.value_a is not None and pair.value_b is not None:
            found.append(_difference(metric, pair.value_a, pair.value_b))
    return found


def _difference(metric: str, a: float, b: float) -> float:
    if metric == "accuracy":
        return b - a
    if metric == "errors":
        return a - b
    return math.log(max(a, 1.0) / max(b, 1.0))


def _device(pair: Pair, side: str) -> int:
    device: int | None = getattr(pair, f"device_{side}_id")
    return device or 0


def _conclude(experiment: Experiment, rules: terms.Terms, now: datetime) -> None:
    counted = experiment.pairs.filter(state=Pair.State.COUNTED)
    found = versus.judge(differences(counted, rules.metric), rules.alpha)
    experiment.finding = {
        name: round(value, 5) if isinstance(value, float) else value for name, value in vars(found).items()
    }
    experiment.save(update_fields=["finding"])
    wrong = experiment.rollouts.filter(state__in=_GONE_WRONG).first()
    open_pairs = experiment.pairs.filter(state__in=(Pair.State.WAITING, Pair.State.WATCHED)).exists()
    late = now >= experiment.created_at + timedelta(seconds=rules.max_seconds)
    if found.winner:
        experiments.decide(
            experiment, Experiment.State.DECIDED, _winning(experiment, rules, found), now, found.winner
        )
    elif wrong is not None:
        sentence = f"the rollout of {wrong.version} ended: {wrong.reason}"
        experiments.decide(experiment, Experiment.State.STOPPED, sentence, now)
    elif late or not open_pairs:
        why = "time is up" if late else "every pair is counted"
        sentence = f"{why}, and {found.pairs} pairs do not show that either is better"
        experiments.decide(experiment, Experiment.State.UNDECIDED, sentence, now)
    else:
        experiments.tell(experiment)


def _winning(experiment: Experiment, rules: terms.Terms, found: versus.Finding) -> str:
    better = experiment.version_a if found.winner == "a" else experiment.version_b
    evidence = max(found.for_a, found.for_b)
    by = "" if found.mean is None else f" by {in_words(rules.metric, abs(found.mean))}"
    return (
        f"{better} is better in {rules.metric}{by}, on {found.pairs} pairs "
        f"(evidence {evidence:.3g}, {found.needed:.3g} was needed)"
    )


def in_words(metric: str, difference: float) -> str:
    """A difference as people read it: points of a share, or a part of the latency."""
    if metric == "latency":
        return f"{1 - math.exp(-difference):.1%}"
    return f"{difference * 100:.1f} points"


def gap_in_words(experiment: Experiment) -> str:
    """By how much one is better on average, and the interval for it; '' before any pair is counted."""
    metric, found = str(experiment.terms["metric"]), experiment.finding
    mean, low, high = (found.get(name) for name in ("mean", "low", "high"))
    if mean is None:
        return ""
    sign, better = (1, "b") if mean >= 0 else (-1, "a")
    said = f"{better} is better by {in_words(metric, sign * mean)} on average"
    if low is None or high is None:
        return f"{said}; too few pairs to say how much it is for certain."
    ends = sorted((sign * low, sign * high))
    sure = 1 - float(experiment.terms["alpha"])
    return f"{said}; between {in_words(metric, ends[0])} and {in_words(metric, ends[1])} with {sure:.0%} certainty."


def _promote(experiment: Experiment, now: datetime) -> None:
    """By the rule that was set before; in the name of whoever set it."""
    try:
        if experiment.created_by is None:
            raise FleetError("whoever made the experiment is gone")
        experiments.promote(experiment.created_by, experiment, experiment.winner, now, note=experiment.reason)
    except FleetError as error:
        reason = f"{experiment.reason}; it could not be promoted: {error.message}"
        Experiment.objects.filter(pk=experiment.pk, state=Experiment.State.DECIDED).update(reason=reason)
