"""Numbers and anomalies all the way: upload, check, job with a goal in R² or AUC, pages, artifact, device, report."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from onnx import TensorProto, helper, numpy_helper

from compression_jobs.runner import run_job
from device_agent.runtimes.table import runtime
from fleet.accounts.roles import Role
from fleet.gateway import inbox
from fleet.registry import checking, queueing
from fleet.registry.models import Artifact
from fleet.telemetry import summaries
from tests.compression_jobs.test_pipeline import Loopback, delivered
from tests.factories import TargetFactory, UserFactory, api_client
from tests.services import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("one_transaction")]
WORKERS = {
    "registry.check_version": checking.check_version,
    "registry.check_dataset": checking.check_dataset,
    "compression_jobs.run": run_job,
}


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does at once what is handed over."""
    for send in ("send", "send_now"):
        monkeypatch.setattr(queueing, send, lambda task, *args, **_: WORKERS[task](*args))


def dense(*layers: np.ndarray) -> bytes:
    """Dense layers with a relu between them, as an ONNX file."""
    sizes, nodes = [layers[0].shape[0], layers[-1].shape[1]], []
    for at, _ in enumerate(layers):
        nodes.append(helper.make_node("MatMul", [f"h{at}" if at else "x", f"w{at}"], [f"s{at}"]))
        nodes.append(helper.make_node("Relu", [f"s{at}"], [f"h{at + 1}"]))
    nodes[-1] = helper.make_node("Identity", [nodes[-1].input[0]], ["y"])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in zip("xy", sizes, strict=True)
    ]
    weights = [numpy_helper.from_array(layer.astype(np.float32), f"w{at}") for at, layer in enumerate(layers)]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def prices() -> tuple[bytes, dict[str, Any]]:
    """A net that knows numbers around 2000 well, from features of very different sizes."""
    chance = np.random.default_rng(0)
    first, second = chance.normal(size=(6, 32)), chance.normal(size=(32, 1)) * 300
    sizes = np.array([2000.0, 70.0, 3.0, 1.0, 0.2, 0.01])
    x = chance.normal(size=(240, 6))
    y = np.maximum(x @ first, 0) @ second + chance.normal(size=(240, 1)) * 50
    rows = {"x": (x * sizes).astype(np.float32), "y": y.astype(np.float32)}
    return dense(first / sizes[:, None], second), rows


def machines() -> tuple[bytes, dict[str, Any]]:
    """A net that rebuilds rows of two hidden causes, and rows among them that have none."""
    chance = np.random.default_rng(1)
    causes = np.linalg.qr(chance.normal(size=(12, 2)))[0]
    strange = np.arange(240) % 4 == 0
    x = chance.normal(size=(240, 2)) @ causes.T + chance.normal(size=(240, 12)) * 0.05
    x[strange] = chance.normal(size=(60, 12))
    # A relu lets a number through as its positive and its negative part.
    narrow = np.concatenate([causes, -causes], axis=1)
    wide = np.concatenate([causes.T, -causes.T])
    rows = {"x": x.astype(np.float32), "y": strange.astype(np.int64), "task": np.array("reconstruction")}
    return dense(narrow, wide), rows


def upload(client: Client, task: str, model: bytes, rows: dict[str, Any]) -> int:
    """Upload a model `m` and its rows, both of which must be found ready; the dataset's id."""
    made = {"slug": "m", "name": "M", "task": task}
    assert client.post("/api/v1/models", made, content_type="application/json").status_code == 201
    file = io.BytesIO()
    np.savez(file, **rows)
    sent = {"file": SimpleUploadedFile("d.npz", file.getvalue()), "name": "rows"}
    dataset = client.post("/api/v1/datasets", sent).json()["id"]
    client.post("/api/v1/models/m/versions", {"files": [SimpleUploadedFile("m.onnx", model)]})
    for path in ("models/m/versions/1", f"datasets/{dataset}"):
        found = client.get(f"/api/v1/{path}").json()
        assert (found["state"], found["reason"]) == ("ready", "")
    return int(dataset)


@pytest.mark.parametrize(
    ("task", "material", "targets", "shown"),
    [
        ("regression", prices, ["esp32-s3", "raspberry-pi-4"], "R² 0.9"),
        ("reconstruction", machines, ["raspberry-pi-4"], "AUC "),
    ],
)
def test_a_job_for_another_task_ends_in_artifacts_that_devices_run_and_report_on(
    task: str, material: Any, targets: list[str], shown: str, tmp_path: Path
) -> None:
    person = UserFactory(roles=[Role.ENGINEER])
    client, browser = api_client(user=person), Client()
    browser.force_login(person)
    model, rows = material()
    dataset = upload(client, task, model, rows)
    for slug in targets:
        TargetFactory(slug=slug)
    wanted = {
        "model": "m",
        "version": 1,
        "dataset": dataset,
        "effort": {"train_steps": 0, "candidates": 2},
        "goals": {"targets": targets, "min_accuracy": 0.85, "objective": "bytes"},
    }
    answer = client.post("/api/v1/jobs", wanted, content_type="application/json")
    job = client.get(f"/api/v1/jobs/{answer.json()['id']}").json()
    assert (job["state"], job["reason"]) == ("succeeded", "")
    listed = client.get(f"/api/v1/jobs/{job['id']}/candidates").json()["items"]
    assert {each["target"] for each in listed} == set(targets)
    assert shown in browser.get(f"/jobs/{job['id']}/").content.decode()
    artifacts = {artifact.target.slug: artifact for artifact in Artifact.objects.all()}
    assert sorted(artifacts) == targets
    for artifact in artifacts.values():
        assert shown in browser.get(f"/artifacts/{artifact.pk}/").content.decode()
        assert artifact.signature["task"] == task
        evened = artifact.signature["normalisation"] is not None
        assert evened == (artifact.target.slug == "esp32-s3")  # onnxruntime has it inside the model
        assert artifact.accuracy_floor is None  # right and wrong are no words of these tasks
    told = reported(artifacts[targets[0]], tmp_path, rows)
    page = browser.get(f"/telemetry/?artifact={artifacts[targets[0]].pk}").content.decode()
    assert told.n == 8
    assert (told.accuracy, "Mean absolute error" in page) == (None, task == "regression")
    if task == "regression":
        assert 0 < (told.mean_abs_err or 0) <= (told.root_mean_sq_err or 0) < rows["y"].std() / 2


def reported(artifact: Artifact, folder: Path, rows: dict[str, Any]) -> summaries.Summary:
    """What the server knows of eight answers of a real agent, whose truth came later where a task has one."""
    broker = Loopback()
    with delivered(artifact, folder, broker, runtime(artifact.target.runtime)) as agent:
        for x, y in zip(rows["x"][:8], rows["y"][:8], strict=True):
            prediction, _ = agent.predict(x)
            agent.label(prediction, y.tolist())
        until("a report", lambda: any(topic.endswith("/report") for topic, _ in list(broker.seen)))
    now = timezone.now()
    inbox.store([inbox.Arrival(topic, payload, False, 0, 1, 0) for topic, payload in broker.seen], now)
    return summaries.summarise(summaries.Scope(artifact=artifact))


def test_a_dataset_for_another_task_than_the_model_s_is_refused() -> None:
    client = api_client(user=UserFactory(roles=[Role.ENGINEER]))
    model, rows = prices()
    dataset = upload(client, "classification", model, rows)
    wanted = {
        "model": "m",
        "version": 1,
        "dataset": dataset,
        "goals": {"targets": [TargetFactory().slug], "max_drop": 0.1},
    }
    answer = client.post("/api/v1/jobs", wanted, content_type="application/json")
    assert answer.status_code == 422
    assert "m is a model for classification, dataset" in answer.json()["detail"]
    assert "floats a regression" in answer.json()["remedy"]
