"""Django's own dictionaries for a database, a cache and a storage, made from one URL each."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import environ

SQLITE_OPTIONS = {
    # A transaction that only later turns out to write would fail at once instead of waiting for its turn.
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL;",
}


class BadURLError(ValueError):
    """A URL in the environment that names nothing usable; the text says what would."""


def database(url: str, sqlite_file: Path) -> dict[str, Any]:
    """The DATABASES entry for `url`, or for a SQLite file when it is empty."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(sqlite_file),
            "OPTIONS": dict(SQLITE_OPTIONS),
        }
    try:
        found: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except Exception as error:  # django-environ raises whatever its parsing stumbles over
        raise BadURLError("it is not a database URL such as postgres://user:password@host/name") from error
    engine = found.get("ENGINE", "")
    if engine == "django.db.backends.sqlite3":
        found["OPTIONS"] = {**SQLITE_OPTIONS, **found.get("OPTIONS", {})}
    elif engine == "django.db.backends.postgresql":
        found.setdefault("CONN_HEALTH_CHECKS", True)
    else:
        raise BadURLError("only postgres:// and sqlite:/// databases are supported")
    return found


def cache(redis_url: str) -> dict[str, Any]:
    """The CACHES entry: the Redis database after Celery's, because clearing a cache empties its whole database."""
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _next_database(redis_url),
        "KEY_PREFIX": "tinyfleet",
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 2},
    }


def _next_database(redis_url: str) -> str:
    parts = urlsplit(redis_url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise BadURLError("it is not a Redis URL such as redis://127.0.0.1:6379/0")
    number = parts.path.strip("/") or "0"
    if not number.isdecimal():
        raise BadURLError(f"'{number}' is not the number of a Redis database")
    return parts._replace(path=f"/{int(number) + 1}").geturl()


def storage(url: str, folder: Path) -> dict[str, Any]:
    """The default STORAGES entry: a folder, or a bucket with `s3://bucket/prefix?endpoint=URL&region=NAME`."""
    if not url:
        return _folder_storage(folder)
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return _folder_storage(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return _bucket_storage(parts.netloc, parts.path.strip("/"), dict(parse_qsl(parts.query)))
    raise BadURLError("it is neither file:///absolute/folder nor s3://bucket/prefix")


def _folder_storage(folder: Path) -> dict[str, Any]:
    # Nothing is served from here directly: every download is a view that asks who is asking.
    options = {"location": str(folder), "file_permissions_mode": 0o640, "directory_permissions_mode": 0o750}
    return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}


def _bucket_storage(bucket: str, prefix: str, query: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {"bucket_name": bucket, "location": prefix, "file_overwrite": True}
    unknown = set(query) - {"endpoint", "region"}
    if unknown:
        raise BadURLError(
            f"it does not know the option '{sorted(unknown)[0]}'; endpoint and region are known"
        )
    if "endpoint" in query:
        options["endpoint_url"] = query["endpoint"]
    if "region" in query:
        options["region_name"] = query["region"]
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}


def mqtt(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is used, of an `mqtt://` or `mqtts://` URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise BadURLError("it is not a broker URL such as mqtt://127.0.0.1:1883")
    try:
        port = parts.port
    except ValueError:
        raise BadURLError("its port is not a number up to 65535") from None
    tls = parts.scheme == "mqtts"
    return parts.hostname, port or (8883 if tls else 1883), tls


def email(url: str) -> dict[str, Any]:
    """Django's settings of e-mail; without a URL no e-mail is sent."""
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    try:
        found: dict[str, Any] = dict(environ.Env.email_url_config(url))
    except Exception as error:  # django-environ raises whatever its parsing stumbles over
        raise BadURLError("it is not an e-mail URL such as smtp://user:password@host:587") from error
    if not found.get("EMAIL_HOST"):
        raise BadURLError("it names no host")
    return {name: value for name, value in found.items() if name.startswith("EMAIL_")}
