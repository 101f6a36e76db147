"""Enrolment: a one-time token becomes this device's credentials and provisioning file."""

import json
from pathlib import Path
from typing import Any

from device_agent import config, web
from device_agent.core import protocol
from device_agent.errors import EnrolmentError, ProvisioningError

ANSWER_MAX_BYTES = config.MAX_BYTES
REASON_MAX_CHARS = 300


def enrol(server: str, token: str, device: str, state: Path) -> dict[str, Any]:
    """Enrol `device` and keep its provisioning in `state`; raises EnrolmentError or ProvisioningError."""
    if not protocol.is_id(device):
        raise EnrolmentError(f"'{device}' is no device name: use 1 to 64 of A-Z a-z 0-9 _ -")
    body = json.dumps({"token": token, "device": device}).encode()
    try:
        status, answer = web.request(
            f"{server.rstrip('/')}/api/v1/enrol",
            body=body,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            limit_bytes=ANSWER_MAX_BYTES,
        )
    except OSError as error:
        raise EnrolmentError(f"cannot reach {server}: {error}; check the address and that it runs") from error
    provisioning = _provisioning(server, device, status, answer)
    config.save(state, provisioning)
    return provisioning


def _provisioning(server: str, device: str, status: int, answer: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(answer) if len(answer) <= ANSWER_MAX_BYTES else None
    except (ValueError, RecursionError):
        fields = None
    if status // 100 != 2:
        raise EnrolmentError(f"{server} did not enrol {device}: {_reason(status, fields)}")
    try:
        provisioning = config.checked(fields)
    except ProvisioningError as error:
        raise EnrolmentError(
            f"{server} answered with no usable provisioning: {error}; is it a Tinyfleet server?"
        ) from error
    if provisioning["device"] != device:
        raise EnrolmentError(f"{server} answered with the provisioning of another device")
    return provisioning


def _reason(status: int, fields: object) -> str:
    if not isinstance(fields, dict) or not isinstance(fields.get("detail"), str):
        return f"it answered {status}; is it a Tinyfleet server?"
    parts = [part for part in (fields["detail"], fields.get("remedy")) if isinstance(part, str) and part]
    return " ".join(part if part[-1] in ".!?" else part + "." for part in parts)[:REASON_MAX_CHARS]
