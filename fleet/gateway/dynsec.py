"""The users of Mosquitto: commands to its dynamic security plugin, sent over MQTT itself.

Mosquitto 2.0 does not substitute %u in the plugin's rules, so each device gets a role of its own; the plugin
binds client ids too. https://mosquitto.org/documentation/dynamic-security/
"""

import json
from typing import Any

from device_agent.core import protocol
from fleet.gateway.rights import User, device_user
from fleet.inventory.models import BrokerGrant, Device

CONTROL = "$CONTROL/dynamic-security/v1"
RESPONSE = f"{CONTROL}/response"
GATEWAY_ROLE = "tinyfleet-gateway"

Command = dict[str, Any]


def commands_for(grant: BrokerGrant) -> list[Command]:
    """What makes the plugin accept a grant's device, or throw it off and forget it."""
    name = grant.device.name
    if not grant.allowed or grant.device.state != Device.State.ACTIVE:
        # Disabling comes first: it throws the device off at once.
        return [
            {"command": "disableClient", "username": name},
            {"command": "deleteClient", "username": name},
            {"command": "deleteRole", "rolename": _role(name)},
        ]
    return _accept(device_user(name, grant.generation))


def gateway_commands(username: str, shared: str) -> list[Command]:
    """What the gateway's own user needs beyond controlling the plugin."""
    everything = f"{protocol.ROOT}/#"
    allow = [
        ("publishClientSend", everything),
        ("publishClientReceive", everything),
        ("subscribePattern", everything),
    ]
    if shared:
        allow.append(("subscribePattern", f"{shared}{everything}"))
    return [
        {"command": "createRole", "rolename": GATEWAY_ROLE},
        {"command": "modifyRole", "rolename": GATEWAY_ROLE, "acls": [_acl(*pair) for pair in allow]},
        {"command": "addClientRole", "username": username, "rolename": GATEWAY_ROLE},
    ]


def payload(commands: list[Command]) -> bytes:
    """One message to the plugin; it carries passwords, so it goes over TLS or loopback only."""
    return json.dumps({"commands": commands}).encode()


def failures(response: bytes) -> list[str]:
    """What the plugin refused, in its words; what was there already, or gone already, is no failure."""
    try:
        answers = json.loads(response).get("responses", [])
    except (ValueError, AttributeError):
        return ["an answer that is no JSON"]
    harmless = ("already exists", "not found", "already in", "already disabled", "is already")
    found = [f"{a.get('command')}: {a['error']}" for a in answers if isinstance(a, dict) and a.get("error")]
    return [text for text in found if not any(words in text.lower() for words in harmless)]


def _accept(user: User) -> list[Command]:
    mine = user.credentials
    acls = [_acl("publishClientSend", topic) for topic in user.publish]
    acls += [_acl("subscribePattern", topic) for topic in user.subscribe]
    acls += [_acl("publishClientReceive", topic) for topic in user.subscribe]
    return [
        {"command": "createRole", "rolename": _role(mine.username)},
        {"command": "modifyRole", "rolename": _role(mine.username), "acls": acls},
        {
            "command": "createClient",
            "username": mine.username,
            "password": mine.password,
            "clientid": mine.client_id,
            "roles": [{"rolename": _role(mine.username)}],
        },
        # createClient changes nothing of a client that is there, so a new generation needs this.
        {
            "command": "modifyClient",
            "username": mine.username,
            "password": mine.password,
            "clientid": mine.client_id,
            "roles": [{"rolename": _role(mine.username)}],
        },
        {"command": "enableClient", "username": mine.username},
    ]


def _role(device: str) -> str:
    return f"device-{device}"


def _acl(kind: str, topic: str) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic, "allow": True}
