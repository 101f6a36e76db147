"""Alerts: raised once, closed by themselves when the reason is over."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fleet import events
from fleet.inventory.models import Device, DeviceApp
from fleet.telemetry import summaries
from fleet.telemetry.models import Alert, Report

# Labels of this long ago still say something about now.
ACCURACY_WINDOW = timedelta(days=1)
MIN_LABELLED = 20

Key = tuple[str, int | None, int | None]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be now."""

    kind: str
    device: int | None
    artifact: int | None
    sentence: str
    evidence: dict[str, Any]

    @property
    def key(self) -> Key:
        """What makes it the same finding the next time."""
        return self.kind, self.device, self.artifact


def review(now: datetime) -> int:
    """Raise what is new, close what is over; returns how many alerts changed."""
    findings = {finding.key: finding for finding in (*overdue(now), *inaccurate(now))}
    kinds = (Alert.Kind.OVERDUE, Alert.Kind.ACCURACY)
    open_ones = {_key(alert): alert for alert in Alert.objects.filter(closed_at=None, kind__in=kinds)}
    over = [alert.pk for key, alert in open_ones.items() if key not in findings]
    closed = Alert.objects.filter(pk__in=over, closed_at=None).update(closed_at=now)
    fresh = [finding for key, finding in findings.items() if key not in open_ones]
    # The constraint lets one open alert a thing exist, also when two reviews run at once.
    Alert.objects.bulk_create([_alert(finding) for finding in fresh], ignore_conflicts=True)
    if closed or fresh:
        events.publish("alerts", "overview")
    return closed + len(fresh)


def overdue(now: datetime) -> Iterable[Finding]:
    """Active devices that missed three heartbeats."""
    for device in Device.objects.filter(state=Device.State.ACTIVE, online=True):
        if device.is_overdue(now) and device.last_seen_at is not None:
            sentence = f"{device.name} was last heard {_ago(now - device.last_seen_at)} ago"
            evidence = {"last_seen_at": device.last_seen_at.isoformat(), "heartbeat_s": device.heartbeat_s}
            yield Finding(Alert.Kind.OVERDUE, device.pk, None, sentence, evidence)


def inaccurate(now: datetime) -> Iterable[Finding]:
    """Devices whose labelled accuracy lies below the artifact's floor beyond doubt: the whole interval does."""
    since = now - ACCURACY_WINDOW
    labelled = (
        Report.objects.filter(end_at__gte=since, labelled__gt=0).values("device_id").distinct().order_by()
    )
    runs = DeviceApp.objects.filter(device__in=labelled, artifact__isnull=False)
    for row in runs.select_related("device", "artifact__version__model", "artifact__target"):
        artifact = row.artifact
        if artifact is None or artifact.accuracy_floor is None:
            continue
        scope = summaries.Scope(devices=[row.device], artifact=artifact, app=row.app, since=since)
        seen = summaries.summarise(scope).accuracy
        if seen is not None and seen.n >= MIN_LABELLED and seen.high < artifact.accuracy_floor:
            sentence = (
                f"{row.device.name}: {seen.value:.1%} of {seen.n} labelled answers of {artifact.version} are right "
                f"(95 % interval to {seen.high:.1%}); at least {artifact.accuracy_floor:.1%} was expected"
            )
            evidence = {"value": seen.value, "low": seen.low, "high": seen.high, "n": seen.n}
            yield Finding(Alert.Kind.ACCURACY, row.device_id, artifact.pk, sentence, evidence)


def _key(alert: Alert) -> Key:
    return alert.kind, alert.device_id, alert.artifact_id


def _alert(finding: Finding) -> Alert:
    return Alert(
        kind=finding.kind,
        device_id=finding.device,
        artifact_id=finding.artifact,
        sentence=finding.sentence,
        evidence=finding.evidence,
    )


def _ago(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
