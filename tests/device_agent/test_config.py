"""The provisioning file is private, checked as a whole, and says what is wrong with it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from device_agent import config
from device_agent.errors import ProvisioningError
from tests.device_agent.conftest import provisioning


def test_what_was_saved_is_loaded_and_readable_to_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    config.save(folder, provisioning(note="kept"))
    assert config.load(folder) == provisioning(note="kept")
    assert stat.S_IMODE(config.provision_file(folder).stat().st_mode) == 0o600
    config.save(folder, provisioning(device="pi-2"))
    assert config.load(folder)["device"] == "pi-2"
    assert [path.name for path in folder.iterdir()] == ["provision.json"]


def test_a_missing_file_says_how_to_enrol(tmp_path: Path) -> None:
    with pytest.raises(
        ProvisioningError, match=r"does not exist: enrol first \(python -m device_agent enrol"
    ):
        config.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_says_so(state: Path, content: bytes) -> None:
    config.provision_file(state).write_bytes(content)
    with pytest.raises(ProvisioningError, match="is not JSON; delete it and enrol again"):
        config.load(state)


def test_every_bad_field_is_named_at_once(state: Path) -> None:
    bad = provisioning(device="a/b", apps=[], keys=[{"id": "x"}], broker={"host": "h", "port": 0, "tls": 1})
    config.provision_file(state).write_text(json.dumps(bad))
    expected = "missing or unusable: device, apps, keys, broker.port, broker.tls; delete it"
    with pytest.raises(ProvisioningError, match=expected):
        config.load(state)


@pytest.mark.parametrize("fields", [None, [], "x", {}, {"v": 2}])
def test_something_else_than_a_provisioning_is_refused(fields: Any) -> None:
    with pytest.raises(ProvisioningError):
        config.checked(fields)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProvisioningError, match="cannot be written"):
        config.save(tmp_path / "file" / "state", provisioning())
