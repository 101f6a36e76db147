"""Every environment variable the server reads: its name, its default, what it means, and whether its value is good.

A bad value does not stop the import of the settings: the default is used, the problem is kept in `PROBLEMS`, and the
system checks report all of them at once, so that nobody fixes a deployment one trace at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import environ

from fleet.config.connections import BadURLError

Kind = Literal["text", "flag", "number", "list"]

Made = TypeVar("Made")

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Variable:
    """One environment variable; `default` is the text the README shows."""

    name: str
    default: str
    meaning: str
    kind: Kind = "text"
    minimum: int = 0


@dataclass(frozen=True)
class Problem:
    """A value that was not understood, and what to write instead."""

    name: str
    message: str
    hint: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "TINYFLEET_VAR", "var", "Folder of everything the embedded stack keeps: database, files, keys, logs."
    ),
    Variable("PUBLIC_URL", "http://127.0.0.1:8000", "Where browsers and devices reach the web server."),
    Variable("ALLOWED_HOSTS", "", "More host names the web server answers to, beside PUBLIC_URL's.", "list"),
    Variable("TRUST_PROXY", "false", "A proxy in front sets X-Forwarded-Proto and may be believed.", "flag"),
    Variable("SECRET_KEY", "", "Signs sessions. Empty: made once and kept in TINYFLEET_VAR with mode 0600."),
    Variable("DEBUG", "false", "Django's debug pages. Never on a machine that others reach.", "flag"),
    Variable("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR."),
    Variable("DATABASE_URL", "", "`postgres://user:password@host/name`. Empty: SQLite in TINYFLEET_VAR."),
    Variable(
        "REDIS_URL",
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey: Celery, live pages; the cache uses the next database.",
    ),
    Variable(
        "MQTT_URL", "mqtt://127.0.0.1:1883", "Where the gateway reaches the broker; `mqtts://` for TLS."
    ),
    Variable("MQTT_DEVICE_URL", "", "Where devices reach the broker. Empty: the same as MQTT_URL."),
    Variable("MQTT_CA_FILE", "", "Certificate authority of the broker, when it is not one the system knows."),
    Variable(
        "BROKER_GRANTS", "none", "How the broker learns of devices: `nats-file:PATH`, `dynsec` or `none`."
    ),
    Variable(
        "STORAGE_URL",
        "",
        "`file:///folder` or `s3://bucket/prefix?endpoint=URL`. Empty: a folder in TINYFLEET_VAR.",
    ),
    Variable(
        "KEYS_DIR",
        "",
        "Folder of the signing and broker keys, one file a key. Empty: a folder in TINYFLEET_VAR.",
    ),
    Variable("UPLOAD_MAX_BYTES", str(512 * MEBIBYTE), "Largest request body that is taken.", "number", 1024),
    Variable("BLOB_MQTT_MAX_BYTES", str(8 * MEBIBYTE), "Larger artifacts go to devices by HTTPS.", "number"),
    Variable("JOB_MAX_SECONDS", "21600", "After this long a compression job is stopped.", "number", 60),
    Variable(
        "WEBHOOK_HOSTS",
        "",
        "Hosts that webhooks may lead to, with commas; names must resolve to public addresses. Empty: none.",
        "list",
    ),
    Variable(
        "EMAIL_URL",
        "",
        "`smtp://user:password@host:587` (`smtp+tls`, `smtp+ssl`). Empty: no e-mail is sent.",
    ),
    Variable("EMAIL_FROM", "tinyfleet@localhost", "Sender of e-mail."),
)

_BY_NAME = {variable.name: variable for variable in VARIABLES}
_ENV = environ.Env()

PROBLEMS: list[Problem] = []


def text(name: str) -> str:
    """The value of a text variable, or its default."""
    value: str = _ENV.str(_BY_NAME[name].name, default=_BY_NAME[name].default)
    return value.strip()


def flag(name: str) -> bool:
    """The value of a yes-or-no variable."""
    value = text(name).lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value not in ("0", "false", "no", "off", ""):
        _complain(name, f"{name} is '{value}', which is neither yes nor no", "Write true or false.")
    return False


def number(name: str) -> int:
    """The value of a whole-number variable, not below its minimum."""
    variable, value = _BY_NAME[name], text(name)
    if value.isascii() and value.isdecimal() and int(value) >= variable.minimum:
        return int(value)
    _complain(
        name,
        f"{name} is '{value}', which is not a whole number of at least {variable.minimum}",
        f"Write digits only, for example {variable.default}.",
    )
    return int(variable.default)


def listed(name: str) -> list[str]:
    """The comma-separated values of a list variable."""
    return [item.strip() for item in text(name).split(",") if item.strip()]


def folder(name: str, fallback: Path | None = None) -> Path:
    """An absolute folder; relative ones start at the working directory."""
    value = text(name)
    return Path(value).expanduser().absolute() if value or fallback is None else fallback


def connection(name: str, make: Callable[[str], Made]) -> Made:
    """What `make` turns the URL in a variable into; a URL it refuses is reported and the default is used."""
    try:
        return make(text(name))
    except BadURLError as error:
        _complain(name, f"{name} cannot be used: {error}", f"Set {name} to such a URL, or leave it out.")
        return make(_BY_NAME[name].default)


def _complain(name: str, message: str, hint: str) -> None:
    PROBLEMS.append(Problem(name, message, hint))
