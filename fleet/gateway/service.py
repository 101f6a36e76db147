"""The gateway itself: one loop that takes messages in, one that sends rows out, each made of small steps."""

import fcntl
import logging
import os
import threading
import time
from typing import IO

import redis
from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.utils import timezone

from fleet import events
from fleet.errors import FleetError
from fleet.gateway import grants, inbox, outbox
from fleet.gateway.broker import Arrival, Broker
from fleet.gateway.broker import Settings as BrokerSettings

# The outbox is read this often even when nobody wakes it.
LOOK_EVERY_SECONDS = 1.0
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
ALIVE_EVERY_SECONDS = 2.0
ALIVE_KEPT_SECONDS = 24 * 3600

ONLY_ONE = (
    "this broker has no shared subscriptions, so only one gateway may run, and one runs already{who}; stop it first, or "
    "use a broker with shared subscriptions and add ?shared=true to MQTT_URL"
)

logger = logging.getLogger(__name__)

Granting = grants.NoGrants | grants.NatsFile | grants.Dynsec


class SecondGatewayError(Exception):
    """Another gateway runs on a broker that takes only one."""


class Gateway:
    """MQTT to the fleet and back, until it is stopped."""

    def __init__(self, instance: int = 0) -> None:
        self.settings = BrokerSettings.of_environment(instance)
        self.lock = None if self.settings.shared else _take_lock()
        self.broker = Broker(self.settings)
        self.granting = self._granting()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until `stop`; the broker, the database and Redis may come and go."""
        threads = [
            threading.Thread(target=self._send_for_ever, name="outbox"),
            threading.Thread(target=self._listen_for_ever, name="wake", daemon=True),
        ]
        self.broker.start()
        for thread in threads:
            thread.start()
        try:
            self._receive_for_ever()
        finally:
            self.stop()
            threads[0].join(15)
            self.close()

    def close(self) -> None:
        """Disconnect, leaving what waits at the broker there, and let another gateway start."""
        self.broker.stop()
        if self.lock is not None:
            self.lock.close()

    def stop(self) -> None:
        """Ask both loops to end."""
        self.stopping.set()
        self.broker.wake.set()

    # --- in --------------------------------------------------------------------------------------

    def receive_once(self, wait_s: float = 0.5) -> int:
        """Store and acknowledge one batch; returns how many messages it had."""
        batch = inbox.take_batch(self.broker.arrivals, wait_s)
        if batch:
            self._store(batch)
        return len(batch)

    def _receive_for_ever(self) -> None:
        while not self.stopping.is_set():
            close_old_connections()
            self.receive_once()
        connection.close()

    def _store(self, batch: list[Arrival]) -> None:
        """Try until the database has it; only then the broker may forget it."""
        for attempt in range(1_000_000):
            if self.stopping.is_set():
                return
            try:
                inbox.store(batch, timezone.now())
            except inbox.DATABASE_AWAY as error:
                logger.error("the database does not answer, %d messages wait: %s", len(batch), error)
                connection.close()
                self.stopping.wait(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            else:
                self.broker.acknowledge(batch)
                return

    # --- out -------------------------------------------------------------------------------------

    def send_once(self) -> int:
        """One look at the outbox; returns how much was published or granted."""
        now = timezone.now()
        work = 0
        if isinstance(self.granting, grants.NatsFile):
            # Without our own line in the file the broker would not let us in.
            work += self.granting.grant_once(now)
        if not self.broker.connected:
            return work
        self._catch_up()
        if isinstance(self.granting, grants.Dynsec):
            work += self.granting.grant_once(now)
        return work + outbox.publish_once(self.broker, now)

    def _catch_up(self) -> None:
        """After the broker forgot us: mark everything wanted as due, or remember that this is still to be done."""
        if not self.broker.take_forgotten():
            return
        try:
            if isinstance(self.granting, grants.Dynsec):
                self.granting.grant_own()
                # What was refused before the gateway had its rights is granted now.
                self.broker.subscribe()
            marked = outbox.mark_all_due()
        except Exception:
            self.broker.remember_forgotten()
            raise
        logger.info("the broker did not know this gateway's session: %d things are published again", marked)

    def _send_for_ever(self) -> None:
        failures = 0
        while not self.stopping.is_set():
            close_old_connections()
            self._note_alive()
            # Cleared before looking: a wake-up during the look causes another one.
            self.broker.wake.clear()
            try:
                busy = self.send_once() > 0
                failures = 0
            except (DatabaseError, FleetError, OSError) as error:
                logger.error("the outbox cannot be sent: %s", error)
                connection.close()
                busy, failures = False, failures + 1
            except Exception:
                logger.exception("the outbox cannot be sent")
                busy, failures = False, failures + 1
            if not busy:
                self.broker.wake.wait(LOOK_EVERY_SECONDS if not failures else min(failures, 5))
        connection.close()

    def _listen_for_ever(self) -> None:
        """Wake the outbox when somebody says that a row is due; without Redis it is read every second anyway."""
        while not self.stopping.is_set():
            try:
                with events.connection().pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(events.OUTBOX)
                    while not self.stopping.is_set():
                        if channel.get_message(timeout=1.0):
                            self.broker.wake.set()
            except (redis.RedisError, OSError):
                self.stopping.wait(5)

    # --- the rest --------------------------------------------------------------------------------

    _noted_at = float("-inf")

    def _note_alive(self) -> None:
        """Show that we are at work, under the key that the health page reads."""
        if time.monotonic() - self._noted_at < ALIVE_EVERY_SECONDS:
            return
        self._noted_at = time.monotonic()
        try:
            cache.set("alive:gateway", time.time(), ALIVE_KEPT_SECONDS)
        except (redis.RedisError, OSError) as error:
            logger.warning(
                "the gateway cannot say that it is at work, because Redis does not answer: %s", error
            )

    def _granting(self) -> Granting:
        users_file = grants.nats_users_file()
        if users_file is not None:
            return grants.NatsFile(users_file)
        if settings.BROKER_GRANTS == "dynsec":
            return grants.Dynsec(self.broker, self.settings.credentials.username, self.settings.share)
        return grants.NoGrants()


def _take_lock() -> IO[str]:
    """Held as long as this process lives; a second gateway of this installation is told why it may not start."""
    settings.VAR.mkdir(parents=True, exist_ok=True)
    file = (settings.VAR / "gateway.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        pid = file.read().strip()
        file.close()
        raise SecondGatewayError(ONLY_ONE.format(who=f" (pid {pid})" if pid else "")) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
