"""Devices that a test plays by hand: they say what a real one would, through the functions the gateway calls."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from device_agent.core import protocol
from fleet.gateway import inbox
from fleet.inventory.models import Device
from fleet.rollouts.models import Intent
from tests.factories import DeviceFactory


@dataclass
class HandDevice:
    """One device with its own memory: what it runs, the last sequence, its epoch."""

    row: Device
    epoch: int = 77
    session: int = 65537
    sequence: int = 0
    installed: str = ""
    report: int = 0
    outcome: dict[str, Any] | None = field(default=None)
    at_work: dict[str, Any] | None = field(default=None)
    keys: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.name

    def say(self, kind: str, message: dict[str, Any], now: datetime, retained: bool = False) -> None:
        """Send one message and have it applied, as after the gateway's checks."""
        payload = protocol.encode(dict(message))
        checked = inbox.PARSERS[kind](payload)
        with transaction.atomic():
            inbox.apply([inbox.Received(self.name, kind, checked, retained)], now)

    def hello(self, now: datetime) -> None:
        """Connect."""
        state = {
            "sequence": self.sequence,
            "installed": {"artifact": self.installed} if self.installed else None,
            "outcome": self.outcome,
            "delivery": self.at_work,
        }
        message = {
            "epoch": self.epoch,
            "boot": self.session >> 16,
            "session": self.session,
            "board": "test",
            "runtime": "onnxruntime",
            "agent": "0",
            "uptime_ms": 1000,
            "clock": False,
            "keys": self.keys,
            "apps": {"main": state},
        }
        self.say("hello", message, now)

    def restart(self, now: datetime) -> None:
        """Fall off the broker, boot, and connect again."""
        self.say("presence", {"epoch": self.epoch, "session": self.session, "online": False}, now, True)
        self.session += 65536
        self.say("presence", {"epoch": self.epoch, "session": self.session, "online": True}, now)
        self.hello(now)

    def desired(self) -> dict[str, Any]:
        """The manifest the broker would hold for it; its signature is checked elsewhere."""
        intent = Intent.objects.get(device=self.row, current=True)
        payload = bytes(intent.payload)
        return protocol.parse_manifest(protocol.open_manifest(payload)[2]) if payload else {}

    def status(self, state: str, now: datetime, **more: Any) -> None:
        """Report a state of the delivery it was given."""
        wanted = self.desired()
        self.sequence = wanted["sequence"]
        message = {
            "kind": "delivery",
            "epoch": self.epoch,
            "app": "main",
            "delivery": wanted["delivery"],
            "state": state,
            "sequence": wanted["sequence"],
            "artifact": wanted["artifact"]["sha256"],
            "reason": "",
        } | more
        self.at_work = None if state in protocol.ENDS else {"id": wanted["delivery"], "state": state}
        if state in protocol.ENDS:
            self.outcome = {"delivery": wanted["delivery"], "state": state, "reason": message["reason"]}
        if state == "succeeded" and not more.get("shadow"):
            self.installed = wanted["artifact"]["sha256"]
        self.say("status", message, now)


def hand_device(name: str, now: datetime, **columns: Any) -> HandDevice:
    """An enrolled device that has said hello."""
    device = HandDevice(DeviceFactory(name=name, **columns))
    device.hello(now)
    return device
