"""The provisioning file `provision.json` in the agent's state folder: read, checked, written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_agent.core import protocol
from device_agent.errors import ProvisioningError

FILE_NAME = "provision.json"
MAX_BYTES = 65536


def provision_file(state: Path) -> Path:
    """Where a state folder keeps its provisioning."""
    return state / FILE_NAME


def load(state: Path) -> dict[str, Any]:
    """The checked provisioning of a state folder; raises ProvisioningError."""
    path = provision_file(state)
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ProvisioningError(
            f"{path} does not exist: enrol first (python -m device_agent enrol --server URL --token T --device NAME "
            f"--state {state}), or give run the options --server, --token and --device"
        ) from error
    except OSError as error:
        raise ProvisioningError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProvisioningError(f"{path} is not JSON; delete it and enrol again") from error
    try:
        return checked(fields)
    except ProvisioningError as error:
        raise ProvisioningError(f"{path}: {error}; delete it and enrol again") from error


def save(state: Path, provisioning: dict[str, Any]) -> None:
    """Write the provisioning so that only this user can read it; raises ProvisioningError."""
    path = provision_file(state)
    fresh = path.with_suffix(".new")
    try:
        state.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        # Created with its final mode: the password is never readable to others, not even for a moment.
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(provisioning, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise ProvisioningError(f"{path} cannot be written: {error.strerror or error}") from error


def checked(fields: object) -> dict[str, Any]:
    """The fields of a provisioning file when all are usable; raises ProvisioningError that names every bad one."""
    if not isinstance(fields, dict):
        raise ProvisioningError("no JSON object")
    if fields.get("v") != protocol.VERSION:
        raise ProvisioningError(f"v is {fields.get('v')}, this agent speaks {protocol.VERSION}")
    bad = [name for name, good in _CHECKS.items() if not good(fields.get(name))]
    broker = fields.get("broker")
    if isinstance(broker, dict):
        bad += [f"broker.{name}" for name, good in _BROKER_CHECKS.items() if not good(broker.get(name))]
    if bad:
        raise ProvisioningError(f"missing or unusable: {', '.join(bad)}")
    return fields


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_apps(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 16 and all(protocol.is_id(app) for app in value)


def _is_hex(value: object, size: int) -> bool:
    return isinstance(value, str) and len(value) == 2 * size and set(value) <= set("0123456789abcdef")


def _is_keys(value: object) -> bool:
    if not isinstance(value, list) or not 0 < len(value) <= 16:
        return False
    return all(isinstance(k, dict) and _is_hex(k.get("id"), 8) and _is_hex(k.get("key"), 32) for k in value)


_CHECKS: dict[str, Callable[[object], bool]] = {
    "device": protocol.is_id,
    "target": _text,
    "runtime": _text,
    "apps": _is_apps,
    "chunk_bytes": _whole(256, 1 << 20),
    "heartbeat_s": _whole(1, 86400),
    "report_s": _whole(1, 86400),
    "broker": lambda value: isinstance(value, dict),
    "client_id": _text,
    "username": _text,
    "password": _text,
    "keys": _is_keys,
    "server": _text,
}
_BROKER_CHECKS: dict[str, Callable[[object], bool]] = {
    "host": _text,
    "port": _whole(1, 65535),
    "tls": lambda value: isinstance(value, bool),
    "ca": lambda value: value is None or (isinstance(value, str) and "BEGIN CERTIFICATE" in value),
}
