"""System checks that say which setting is wrong and what to write instead."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from fleet.config import environment

GRANTS = "nats-file:/path/to/users.conf, dynsec or none"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@register("tinyfleet")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that is wrong with the environment, all at once."""
    found: list[CheckMessage] = [
        Error(problem.message, hint=problem.hint, id="tinyfleet.E001") for problem in environment.PROBLEMS
    ]
    for look in (_public_url, _log_level, _grants, _folders, _storage, _open_door):
        found.extend(look())
    return found


def exit_on_errors() -> None:
    """Leave with the checks' lines instead of serving with settings that cannot be meant."""
    errors = [each for each in check_settings(None) if isinstance(each, Error)]
    if errors:
        sys.exit("\n".join(f"{each.msg}. {each.hint}" for each in errors))


def _public_url() -> Iterable[CheckMessage]:
    parts = urlsplit(settings.PUBLIC_URL)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"PUBLIC_URL is '{settings.PUBLIC_URL}', which is no web address"
        yield Error(message, hint="Write, for example, https://fleet.example.org.", id="tinyfleet.E002")


def _log_level() -> Iterable[CheckMessage]:
    if settings.LOG_LEVEL not in LEVELS:
        message = f"LOG_LEVEL is '{settings.LOG_LEVEL}', which is no level"
        yield Error(message, hint=f"Write one of {', '.join(LEVELS)}.", id="tinyfleet.E003")


def _grants() -> Iterable[CheckMessage]:
    kind, _, path = settings.BROKER_GRANTS.partition(":")
    if kind in ("none", "dynsec") and not path:
        return
    if kind != "nats-file" or not path:
        message = (
            f"BROKER_GRANTS is '{settings.BROKER_GRANTS}', which names no way to tell the broker of devices"
        )
        yield Error(message, hint=f"Write {GRANTS}.", id="tinyfleet.E004")


def _folders() -> Iterable[CheckMessage]:
    for name, folder in (("TINYFLEET_VAR", settings.VAR), ("KEYS_DIR", settings.KEYS_DIR)):
        reason = _unusable(folder)
        if reason:
            message = f"{name} is {folder}, {reason}"
            yield Error(message, hint=f"Set {name} to a folder this user may write to.", id="tinyfleet.E005")


def _unusable(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        return "which is not a folder"
    except OSError as error:
        return f"which cannot be made: {error.strerror}"
    return ""


def _storage() -> Iterable[CheckMessage]:
    if not settings.STORAGES["default"]["BACKEND"].startswith("storages."):
        return
    try:
        import boto3  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError:
        hint = "Install it with: pip install 'tinyfleet[server,s3]'"
        yield Error("STORAGE_URL is a bucket, but boto3 is not installed", hint=hint, id="tinyfleet.E006")


def _open_door() -> Iterable[CheckMessage]:
    host = urlsplit(settings.PUBLIC_URL).hostname or ""
    away = host not in ("localhost", "127.0.0.1", "::1", "")
    if settings.DEBUG and away:
        message = f"DEBUG is on, and PUBLIC_URL says that others reach this server as {host}"
        yield Warning(message, hint="Set DEBUG=false.", id="tinyfleet.W001")
    if settings.MQTT_DEVICE_HOST not in ("localhost", "127.0.0.1", "::1") and not settings.MQTT_DEVICE_TLS:
        message = f"devices reach the broker at {settings.MQTT_DEVICE_HOST} without TLS, so passwords can be read on the way"
        yield Warning(message, hint="Set MQTT_DEVICE_URL to mqtts://...", id="tinyfleet.W002")
