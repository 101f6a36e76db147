"""Who the broker lets in: rows of BrokerGrant carried to the broker in the way BROKER_GRANTS names."""

import logging
from datetime import datetime
from pathlib import Path

from django.conf import settings

from fleet.errors import Unavailable
from fleet.gateway import dynsec, nats_file
from fleet.gateway.broker import Broker
from fleet.inventory.models import BrokerGrant

AT_ONCE = 20

logger = logging.getLogger(__name__)


class NoGrants:
    """The broker's users are managed elsewhere."""

    def grant_once(self, now: datetime) -> int:
        """Nothing to do; rows stay due, so that switching grants on later begins with all of them."""
        return 0


class NatsFile:
    """nats-server: the whole file anew whenever a row is due."""

    def __init__(self, users_file: Path) -> None:
        self.users_file = users_file
        self.reloader = nats_file.Reloader(users_file)
        self._reload_owed = False

    def grant_once(self, now: datetime) -> int:
        """Write the file and have the broker read it; 0 when nothing is due or a reload was too short ago."""
        due = list(BrokerGrant.objects.filter(due=True).values("pk", "generation", "allowed"))
        if not (due or self._reload_owed) or self.reloader.wait_s() > 0:
            return 0
        # A reload that failed after the file was written is owed, although the file then looks up to date.
        self._reload_owed = nats_file.write(self.users_file) or self._reload_owed
        if self._reload_owed and self.reloader.reload():
            self._reload_owed = False
        for same in due:
            # Changed once more meanwhile: stays due.
            BrokerGrant.objects.filter(**same).update(due=False, granted_at=now)
        return len(due)


class Dynsec:
    """Mosquitto: commands to its plugin for each row that is due."""

    def __init__(self, broker: Broker, username: str, share: str) -> None:
        self.broker = broker
        self.own = dynsec.gateway_commands(username, share)

    def grant_own(self) -> None:
        """Give the gateway's own user what it needs; raises Unavailable when the plugin does not answer."""
        if not self._send(self.own, "the gateway"):
            raise Unavailable(
                "the broker's security plugin does not answer",
                remedy="Load mosquitto_dynamic_security.so, and let the gateway's user control it.",
            )

    def grant_once(self, now: datetime) -> int:
        """Carry some rows to the plugin; 0 when nothing is due or it does not answer."""
        done = 0
        for grant in BrokerGrant.objects.filter(due=True).select_related("device")[:AT_ONCE]:
            if not self._send(dynsec.commands_for(grant), grant.device.name):
                break
            same = BrokerGrant.objects.filter(pk=grant.pk, generation=grant.generation, allowed=grant.allowed)
            done += same.update(due=False, granted_at=now)
        return done

    def _send(self, commands: list[dynsec.Command], whom: str) -> bool:
        refused = self.broker.control(commands)
        if refused is None:
            return False
        for text in refused:
            logger.error("the broker's security plugin refused a right of %s: %s", whom, text)
        return True


def nats_users_file() -> Path | None:
    """The file that BROKER_GRANTS names, or None when the broker reads none."""
    kind, _, path = settings.BROKER_GRANTS.partition(":")
    return Path(path) if kind == "nats-file" and path else None
