"""What each client of the broker may publish and read: one table for every kind of broker."""

from collections.abc import Iterator
from dataclasses import dataclass

from device_agent.core import protocol
from fleet.inventory.credentials import Credentials, device_credentials, gateway_credentials
from fleet.inventory.models import BrokerGrant, Device

SAID_BY_DEVICES = ("presence", "hello", "status", "report")


@dataclass(frozen=True)
class User:
    """One client of the broker: its credentials, and MQTT topic filters it may publish to and subscribe to."""

    credentials: Credentials
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def device_user(name: str, generation: int) -> User:
    """A device: its own four topics, each named, and nothing of another device."""
    return User(
        device_credentials(name, generation),
        publish=tuple(protocol.device_topic(name, leaf) for leaf in SAID_BY_DEVICES),
        subscribe=(
            protocol.desired_topic(name, "+"),
            protocol.device_topic(name, "command"),
            f"{protocol.ROOT}/blobs/+/+/+",
        ),
    )


def gateway_user(instance: int = 0) -> User:
    """The gateway: everything below our root."""
    everything = (f"{protocol.ROOT}/#",)
    return User(gateway_credentials(instance), publish=everything, subscribe=everything)


def allowed_users() -> Iterator[User]:
    """Every device that may connect now; bounded memory, because there may be many."""
    grants = BrokerGrant.objects.filter(allowed=True, device__state=Device.State.ACTIVE)
    for name, generation in (
        grants.order_by("device__name").values_list("device__name", "generation").iterator()
    ):
        yield device_user(name, generation)
