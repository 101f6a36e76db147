"""What only the passing of time changes: commands expire, devices become overdue."""

from datetime import datetime, timedelta

from fleet import events
from fleet.inventory.models import Device
from fleet.inventory.services import expire_commands

# Twice the interval of the sweep: naming a device twice is harmless, missing one is not.
LOOK_BACK = timedelta(seconds=20)


def sweep_once(now: datetime) -> int:
    """Expire commands and name the devices that became overdue lately; how many they were."""
    expire_commands(now)
    silent = newly_overdue(now - LOOK_BACK, now)
    if silent:
        events.publish("devices", "overview", *(f"device:{name}" for name in silent[:200]))
    return len(silent)


def newly_overdue(since: datetime, now: datetime) -> list[str]:
    """Names of active, online devices whose third heartbeat passed unheard in (since, now]."""
    online = Device.objects.filter(state=Device.State.ACTIVE, online=True, last_seen_at__lt=now)
    return [device.name for device in online if device.is_overdue(now) and not device.is_overdue(since)]
