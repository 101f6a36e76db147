"""Uploads over the API, checked for real: what is taken, what is refused and in which words, and where bytes go."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from onnx import TensorProto, helper, numpy_helper

from fleet.accounts.roles import Role
from fleet.registry import blobs, checking, services
from fleet.registry.models import CheckState, Dataset, Model, ModelVersion, Upload
from fleet.registry.sweeping import sweep
from tests.factories import DatasetFactory, ModelFactory, api_client, npz, onnx_bytes
from tests.fleet.registry.conftest import Queue

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> Model:
    """A model to upload to."""
    return ModelFactory(slug="tiny")


def send(client: Client, *files: tuple[str, bytes]) -> Any:
    """Upload files as one version of `tiny`."""
    uploads = [SimpleUploadedFile(name, content) for name, content in files]
    return client.post("/api/v1/models/tiny/versions", {"files": uploads, "notes": "from a test"})


def with_external_data(folder: Path, location: str = "m.onnx.data") -> tuple[bytes, bytes]:
    """An `.onnx` whose weights are in a second file, and that file."""
    path = folder / "m.onnx"
    model = onnx.load_model_from_string(onnx_bytes(5))
    onnx.save_model(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    proto = onnx.load_model(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    return proto.SerializeToString(), (folder / "m.onnx.data").read_bytes()


def test_a_model_is_taken_at_once_and_described_by_a_worker(model: Model, queue: Queue) -> None:
    client = api_client(Role.ENGINEER)
    answer = send(client, ("net.onnx", onnx_bytes(1)))
    assert (answer.status_code, answer.json()["state"]) == (202, "checking")
    queue.work()
    read = client.get("/api/v1/models/tiny/versions/1").json()
    assert (read["state"], read["reason"], read["notes"]) == ("ready", "", "from a test")
    assert read["facts"]["operators"] == {"Gemm": 1}
    assert read["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 4]}]
    assert blobs.exists(read["sha256"])
    assert not Upload.objects.exists()


def test_weights_in_a_second_file_are_taken_into_the_first(
    model: Model, queue: Queue, tmp_path: Path
) -> None:
    graph, data = with_external_data(tmp_path)
    send(api_client(Role.ENGINEER), ("m.onnx.data", data), ("m.onnx", graph))
    queue.work()
    version = ModelVersion.objects.get()
    assert (version.state, version.reason) == (CheckState.READY, "")
    with blobs.open_blob(version.sha256) as file:
        alone = onnx.load_model_from_string(file.read())
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in alone.graph.initializer)


def refusal(queue: Queue) -> str:
    """Run the check of the only version, which must be refused and lose its bytes; its reason."""
    version = ModelVersion.objects.get()
    digests = list(version.uploads.values_list("sha256", flat=True))
    queue.work()
    version.refresh_from_db()
    assert version.state == CheckState.REFUSED
    assert not any(blobs.exists(sha256) for sha256 in digests)
    return version.reason


def test_a_missing_data_file_is_named_with_both_ways_out(model: Model, queue: Queue, tmp_path: Path) -> None:
    graph, _ = with_external_data(tmp_path)
    send(api_client(Role.ENGINEER), ("m.onnx", graph))
    reason = refusal(queue)
    assert "weights are in m.onnx.data; upload both, or export with external_data=False" in reason


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../m.onnx.data", "a/../../m.onnx.data", "C:\\m.onnx.data"]
)
def test_external_paths_that_leave_the_upload_are_refused(
    model: Model, queue: Queue, tmp_path: Path, location: str
) -> None:
    graph, data = with_external_data(tmp_path, location)
    send(api_client(Role.ENGINEER), ("m.onnx", graph), ("m.onnx.data", data))
    assert "is not a plain file name" in refusal(queue)


@pytest.mark.parametrize("content", [b"not a model at all", b"\x08\x08", b"\x00" * 5000, b"PK\x03\x04"])
def test_a_file_that_is_no_onnx_is_refused(model: Model, queue: Queue, content: bytes) -> None:
    send(api_client(Role.ENGINEER), ("net.onnx", content))
    assert refusal(queue)


def test_a_model_that_the_runtime_cannot_run_is_refused(model: Model, queue: Queue) -> None:
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    send(api_client(Role.ENGINEER), ("net.onnx", proto.SerializeToString()))
    assert "NoSuchOperator" in refusal(queue)


def test_control_flow_is_refused_by_name(model: Model, queue: Queue) -> None:
    value = numpy_helper.from_array(np.zeros((1, 4), np.float32), "v")
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 4])
    branch = helper.make_graph([helper.make_node("Constant", [], ["b"], value=value)], "branch", [], [out])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, name="choice")],
        "flow",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    send(api_client(Role.ENGINEER), ("net.onnx", proto.SerializeToString()))
    assert "choice" in refusal(queue)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("net.pt", b"x")], "torch.onnx.export"),
        ([("a.onnx", b"x"), ("b.onnx", b"x")], "one .onnx"),
        ([("a.onnx", b"x"), ("b", b"x"), ("c", b"x")], "one .onnx"),
        ([("a.tflite", b"x"), ("b.data", b"x")], "alone"),
        ([("a.onnx", b"")], "is empty"),
    ],
)
def test_what_cannot_be_a_model_is_refused_at_once(
    model: Model, files: list[tuple[str, bytes]], words: str
) -> None:
    answer = send(api_client(Role.ENGINEER), *files)
    assert answer.status_code == 422
    assert words in answer.json()["detail"] + answer.json()["remedy"]
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.onnx",
        "/etc/evil.onnx",
        "..\\..\\evil.onnx",
        "C:\\x\\evil.onnx",
        "evil\n.onnx",
        "\u202eevil.onnx",
    ],
)
def test_a_path_in_a_file_name_is_only_ever_its_last_part(name: str) -> None:
    assert services.safe_name(name) == "evil.onnx"


@pytest.mark.parametrize("name", [None, "", "..", "/", "\x00\x01", "a/.."])
def test_a_file_without_a_name_is_refused(name: str | None) -> None:
    with pytest.raises(services.Refused, match="without a name"):
        services.safe_name(name)


def test_the_same_file_again_says_which_version_it_is(model: Model, queue: Queue) -> None:
    client = api_client(Role.ENGINEER)
    send(client, ("net.onnx", onnx_bytes(1)))
    for _ in range(2):  # while it is checked, and after
        answer = send(client, ("renamed.onnx", onnx_bytes(1)))
        assert (answer.status_code, answer.json()["error"]) == (409, "duplicate")
        assert "tiny version 1" in answer.json()["detail"]
        queue.work()
    assert send(client, ("net.onnx", onnx_bytes(2))).json()["version"] == 2
    assert blobs.exists(ModelVersion.objects.get(number=1).sha256)


def test_a_refused_file_may_be_sent_again(model: Model, queue: Queue) -> None:
    client = api_client(Role.ENGINEER)
    send(client, ("net.onnx", b"broken"))
    queue.work()
    assert send(client, ("net.onnx", b"broken")).json()["version"] == 2


def test_an_upload_above_the_limit_stops_there(model: Model, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 1000
    answer = send(api_client(Role.ENGINEER), ("net.onnx", bytes(600)), ("net.onnx.data", bytes(600)))
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert "UPLOAD_MAX_BYTES" in answer.json()["remedy"]
    assert not ModelVersion.objects.exists()


def test_only_engineers_upload(model: Model) -> None:
    for role in (Role.VIEWER, Role.OPERATOR):
        assert send(api_client(role), ("net.onnx", onnx_bytes())).status_code == 403


# --- datasets ------------------------------------------------------------------------------------


def send_data(client: Client, content: bytes, name: str = "d.npz") -> Any:
    """Upload a dataset."""
    return client.post("/api/v1/datasets", {"file": SimpleUploadedFile(name, content), "name": "rows"})


def test_a_dataset_is_taken_at_once_and_described_by_a_worker(queue: Queue) -> None:
    client = api_client(Role.ENGINEER)
    answer = send_data(client, npz(60))
    assert (answer.status_code, answer.json()["state"]) == (202, "checking")
    queue.work()
    read = client.get(f"/api/v1/datasets/{answer.json()['id']}").json()
    assert (read["state"], read["name"], read["facts"]["task"]) == ("ready", "rows", "classification")
    assert read["facts"]["rows"] == {"train": 15, "calibration": 15, "validation": 15, "test": 15}
    again = send_data(client, npz(60))
    assert (again.status_code, again.json()["error"]) == (409, "duplicate")
    assert f"dataset {read['id']}" in again.json()["detail"]


NOT_A_NUMBER = np.full((60, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no zip", "npz"),
        (npz(y=np.arange(60) - 1), "-1"),
        (npz(x=NOT_A_NUMBER), "NaN"),
        (npz(x=np.array([{"a": 1}] * 60, dtype=object)), "pickle"),
        (npz(split=np.array(["train"] * 60)), "calibration"),
        (npz(x=None), "x"),
        (npz(y=np.arange(59) % 3), "59"),
    ],
    ids=["no npz", "label", "nan", "pickle", "empty split", "no x", "lengths"],
)
def test_a_bad_dataset_is_refused_in_words_and_its_bytes_go(queue: Queue, content: bytes, word: str) -> None:
    answer = send_data(api_client(Role.ENGINEER), content)
    assert answer.status_code == 202
    queue.work()
    dataset = Dataset.objects.get()
    assert dataset.state == CheckState.REFUSED
    assert word.lower() in dataset.reason.lower()
    assert not blobs.exists(dataset.sha256)


def test_a_dataset_is_an_npz() -> None:
    answer = send_data(api_client(Role.ENGINEER), b"1,2,3", "rows.csv")
    assert answer.status_code == 422
    assert "numpy.savez" in answer.json()["remedy"]


# --- workers that are lost -----------------------------------------------------------------------


def test_a_check_whose_worker_was_lost_is_handed_over_again(model: Model, queue: Queue) -> None:
    send(api_client(Role.ENGINEER), ("net.onnx", onnx_bytes(1)))
    queue.clear()
    now = timezone.now()
    assert sweep(now).checks == 0  # it was queued a moment ago
    assert sweep(now + timedelta(minutes=1)).checks == 1
    ModelVersion.objects.update(lease_until=now + timedelta(minutes=2))
    assert sweep(now + timedelta(minutes=1)).checks == 0  # somebody is at it
    assert sweep(now + timedelta(minutes=3)).checks == 1
    ModelVersion.objects.update(lease_until=None)
    queue.work()
    assert ModelVersion.objects.get().state == CheckState.READY


def test_a_file_that_takes_every_worker_down_is_refused(model: Model, queue: Queue) -> None:
    send(api_client(Role.ENGINEER), ("net.onnx", onnx_bytes(1)))
    ModelVersion.objects.update(attempt=checking.MAX_ATTEMPTS)
    assert "was interrupted 3 times" in refusal(queue)


def test_a_check_that_lost_its_lease_writes_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = DatasetFactory(state=CheckState.CHECKING, facts={})

    def lose_it(*args: Any, **kwargs: Any) -> dict[str, Any]:
        Dataset.objects.update(lease_token="0" * 32)
        return {"task": "made by a worker that was given up"}

    monkeypatch.setattr(checking, "run_limited", lose_it)
    checking.check_dataset(dataset.pk)
    dataset.refresh_from_db()
    assert (dataset.state, dataset.facts) == (CheckState.CHECKING, {})


def test_no_file_is_read_into_memory_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Watched(io.BytesIO):
        name = "big.onnx"

        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size or -1)
            return super().read(size)

    services.upload_version(model, [Watched(bytes(5_000_000))])  # type: ignore[list-item]
    assert all(0 < size <= blobs.READ_BYTES for size in sizes)
