"""Variables, the URLs in them, and the checks that say what is wrong with them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.test import override_settings

from fleet.config import checks, connections, environment
from fleet.config.secret import secret_key


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[environment.Problem]:
    found: list[environment.Problem] = []
    monkeypatch.setattr(environment, "PROBLEMS", found)
    return found


def test_a_number_that_is_none_is_reported_and_the_default_used(monkeypatch, problems):
    monkeypatch.setenv("UPLOAD_MAX_BYTES", "512MB")
    assert environment.number("UPLOAD_MAX_BYTES") == 512 * 1024 * 1024
    assert "UPLOAD_MAX_BYTES is '512MB', which is not a whole number" in problems[0].message


def test_a_number_below_its_minimum_is_reported(monkeypatch, problems):
    monkeypatch.setenv("JOB_MAX_SECONDS", "5")
    assert environment.number("JOB_MAX_SECONDS") == 21600
    assert "at least 60" in problems[0].message


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("No", False), ("", False), ("maybe", False)]
)
def test_flags(monkeypatch, problems, text, value):
    monkeypatch.setenv("DEBUG", text)
    assert environment.flag("DEBUG") is value
    assert bool(problems) is (text == "maybe")


def test_every_problem_becomes_an_error_with_a_hint(monkeypatch, problems):
    monkeypatch.setenv("REDIS_URL", "localhost:6379")
    monkeypatch.setenv("DEBUG", "perhaps")
    environment.connection("REDIS_URL", connections.cache)
    environment.flag("DEBUG")
    found = [check for check in checks.check_settings(None) if check.id == "tinyfleet.E001"]
    assert len(found) == 2
    assert all(check.hint for check in found)


def test_sqlite_waits_for_its_turn_instead_of_failing(tmp_path):
    options = connections.database("", tmp_path / "db")["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] == 20
    assert "WAL" in options["init_command"]
    assert connections.database("sqlite:////tmp/x.db", tmp_path)["OPTIONS"] == options


def test_postgres_is_understood_and_others_are_refused(tmp_path):
    found = connections.database("postgres://me:pw@db:5433/fleet", tmp_path)
    assert (found["HOST"], found["PORT"], found["NAME"]) == ("db", 5433, "fleet")
    with pytest.raises(connections.BadURLError, match="only postgres"):
        connections.database("mysql://me@db/fleet", tmp_path)


def test_the_cache_is_not_in_the_database_of_the_queues():
    # Clearing Django's cache empties a whole Redis database; tasks must not be in it.
    assert connections.cache("redis://:pw@h:1/3")["LOCATION"] == "redis://:pw@h:1/4"
    assert connections.cache("redis://h")["LOCATION"] == "redis://h/1"


def test_storage_is_a_folder_or_a_bucket():
    folder = connections.storage("file:///srv/my%20blobs", Path("/unused"))
    assert folder["OPTIONS"]["location"] == "/srv/my blobs"
    bucket = connections.storage("s3://models/fleet?endpoint=https://minio&region=eu", Path("/unused"))[
        "OPTIONS"
    ]
    assert (bucket["bucket_name"], bucket["location"], bucket["endpoint_url"]) == (
        "models",
        "fleet",
        "https://minio",
    )
    for bad in ("file://relative/blobs", "ftp://x", "s3://b?colour=red"):
        with pytest.raises(connections.BadURLError):
            connections.storage(bad, Path("/unused"))


@pytest.mark.parametrize(
    ("url", "found"), [("mqtt://h", ("h", 1883, False)), ("mqtts://u:p@h:99?shared=true", ("h", 99, True))]
)
def test_broker_urls(url, found):
    assert connections.mqtt(url) == found


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("PUBLIC_URL", "fleet.example.org", "no web address"),
        ("LOG_LEVEL", "LOUD", "no level"),
        ("BROKER_GRANTS", "nats", "names no way"),
        ("BROKER_GRANTS", "nats-file:", "names no way"),
        ("KEYS_DIR", Path("/dev/null"), "which is not a folder"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(setting, value, words):
    with override_settings(**{setting: value}):
        found = checks.check_settings(None)
        with pytest.raises(SystemExit, match=words):
            checks.exit_on_errors()
    assert any(words in check.msg and check.hint for check in found)


def test_the_present_settings_are_fine():
    assert checks.check_settings(None) == []


def test_the_secret_key_is_private_and_the_same_for_all_who_start_at_once(tmp_path):
    file = tmp_path / "var" / "secret_key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(secret_key, [file] * 32))
    assert len(keys) == 1
    assert len(keys.pop()) > 60
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["secret_key"]
