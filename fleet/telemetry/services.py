"""Questions to telemetry by name, as API and pages ask them."""

from datetime import datetime

from fleet.errors import NotFound, Refused
from fleet.inventory import services as inventory
from fleet.registry.models import Artifact
from fleet.telemetry import alerts, rollups, summaries


def scope_of(
    *,
    device: str = "",
    group: str = "",
    artifact: int | None = None,
    app: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> summaries.Scope:
    """The scope that names describe; NotFound names what is not there."""
    if since is not None and until is not None and until <= since:
        raise Refused("the span ends before it begins", remedy="Swap from and to.")
    devices = None
    if device:
        devices = [inventory.device_named(device)]
    elif group:
        devices = inventory.members(inventory.group_named(group))
    return summaries.Scope(devices=devices, artifact=_artifact(artifact), app=app, since=since, until=until)


def maintain(now: datetime) -> int:
    """Roll up what waits, forget old minutes, look for what people should know."""
    done = rollups.roll_up()
    rollups.forget_minutes(now)
    return done + alerts.review(now)


def _artifact(pk: int | None) -> Artifact | None:
    if pk is None:
        return None
    found = Artifact.objects.filter(pk=pk).first()
    if found is None:
        raise NotFound(f"there is no artifact {pk}", remedy="GET /api/v1/artifacts lists them.")
    return found
