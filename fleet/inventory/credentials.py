"""Broker credentials, derived from one key and the rows, so that no secret lies in the database.

Client ids are secrets too: a broker throws off the older session of a client id whoever asks for it.
"""

import hashlib
import hmac
from dataclasses import dataclass

from fleet.registry import signing

# Not a possible device name, so no device can ever be given the gateway's rights.
GATEWAY_USERNAME = "tinyfleet.gateway"


@dataclass(frozen=True)
class Credentials:
    """What a client shows to the broker."""

    username: str
    password: str
    client_id: str


def device_credentials(device: str, generation: int) -> Credentials:
    """The credentials of one generation of a device."""
    return Credentials(
        username=device,
        password=_derive("device-secret", device, generation),
        client_id=f"{device}-{_derive('device-client-id', device, generation)[:16]}",
    )


def gateway_credentials(instance: int = 0) -> Credentials:
    """The credentials of one gateway; instances share a user but never a client id."""
    return Credentials(
        username=GATEWAY_USERNAME,
        password=_derive("gateway-secret", GATEWAY_USERNAME, 0),
        client_id=f"gateway-{_derive('gateway-client-id', GATEWAY_USERNAME, instance)[:16]}",
    )


def _derive(purpose: str, name: str, generation: int) -> str:
    text = f"{purpose}\0{name}\0{generation}".encode()
    return hmac.new(signing.broker_key(), text, hashlib.sha256).hexdigest()
