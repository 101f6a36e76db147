"""A whole job with the real pipeline: a tiny model in, a measured, verifiable artifact out."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from compression_jobs import services
from compression_jobs.models import Job
from compression_jobs.pipeline.graph import quant_reference
from compression_jobs.pipeline.graph.from_tflite import from_tflite
from compression_jobs.pipeline.transport import decoded
from compression_jobs.runner import run_job
from compression_jobs.workspace import workspace
from device_agent.core.ports import Runtime
from device_agent.core.protocol import chunk_count
from device_agent.host import Host
from device_agent.runtimes.onnx import OnnxRuntime
from device_agent.runtimes.plan.runtime import PlanRuntime
from device_agent.transports.loopback import Broker, LoopbackTransport
from fleet.accounts.roles import Role
from fleet.gateway import outbox
from fleet.registry import blobs, checking, signing
from fleet.registry.models import Artifact, CheckState, ModelVersion
from fleet.rollouts import engine
from fleet.rollouts import services as rollouts
from tests.compression_jobs.pipeline.wake_words import before_the_sigmoid, stream, wake_word
from tests.device_agent.conftest import provisioning
from tests.factories import (
    DatasetFactory,
    DeviceFactory,
    GroupFactory,
    ModelFactory,
    TargetFactory,
    UserFactory,
    VersionFactory,
    api_client,
    npz,
)
from tests.services import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue", "one_transaction")]


def read(sha256: str) -> bytes:
    """The bytes of a blob."""
    with blobs.open_blob(sha256) as file:
        return file.read()


def test_a_job_measures_and_publishes_for_every_target() -> None:
    dataset = DatasetFactory(sha256=blobs.store_bytes(npz(240)).sha256)
    targets = ["raspberry-pi-4", "raspberry-pi-zero-2-w"]
    job = services.submit(VersionFactory(), dataset, targets=targets, min_accuracy=0.6)
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == (Job.State.SUCCEEDED, "")
    artifacts = [candidate.artifact for candidate in job.candidates.exclude(artifact=None)]
    assert sorted(artifact.target.slug for artifact in artifacts if artifact) == targets
    for artifact in filter(None, artifacts):
        sent = read(artifact.transport_sha256)
        assert len(sent) == artifact.transport_bytes < artifact.bytes
        assert decoded(artifact.transport_coding, sent, artifact.bytes) == read(artifact.sha256)
        index = read(artifact.transport_index_sha256)
        assert len(index) == 32 * chunk_count(len(sent), artifact.chunk_bytes)
        assert index[:32] == hashlib.sha256(sent[: artifact.chunk_bytes]).digest()
        assert json.loads(read(artifact.signature_sha256)) == artifact.signature
        assert read(artifact.self_test_sha256)
        assert artifact.measurements["test_accuracy"]["n"] == 60
        assert 0.6 < (artifact.accuracy_floor or 0) <= 1
        assert str(settings.VAR) not in json.dumps([artifact.lineage, artifact.measurements])


class Loopback(Broker):
    """The gateway's broker and the devices' broker in one, in this process."""

    def publish_all(self, messages: list[tuple[str, bytes, bool]]) -> bool:
        """What the outbox calls `publish`."""
        for message in messages:
            self.publish(*message)
        return True


def test_a_recipe_for_a_board_of_one_s_own_reaches_it_coded(tmp_path: Path) -> None:
    board = TargetFactory(slug="my-board")
    recipe = [
        {"name": "canonicalise"},
        {"name": "quantize", "options": {"calibration": "mse"}},
        {"name": "encode", "options": {"coding": "segments"}},
    ]
    job = services.submit(VersionFactory(), DatasetFactory(), targets=[board.slug], recipe=recipe)
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.reason) == (Job.State.SUCCEEDED, "")
    [candidate] = job.candidates.all()
    assert candidate.artifact is not None
    assert [step["name"] for step in candidate.recipe] == ["canonicalise", "quantize", "encode"]
    assert candidate.artifact.transport_coding == "segments"
    with delivered(candidate.artifact, tmp_path, Loopback()) as agent:
        assert agent.predict(np.zeros(4, np.float32))[1]
    installed = next(tmp_path.glob("main.*.model")).read_bytes()
    assert installed == read(candidate.artifact.sha256)


@contextmanager
def delivered(
    artifact: Artifact, folder: Path, broker: Loopback, runtime: Runtime | None = None
) -> Iterator[Host]:
    """A real agent on which a rollout put the artifact, and that tries it now."""
    device = DeviceFactory(target=artifact.target, groups=[GroupFactory(slug="bench")])
    operator = UserFactory(roles=[Role.OPERATOR])
    rollout = rollouts.create(operator, version=artifact.version, group=device.groups.get())
    rollouts.start(operator, rollout)
    engine.tick(timezone.now())
    while outbox.publish_once(SimpleNamespace(publish=broker.publish_all), timezone.now()):
        pass
    keys = [{"id": identity, "key": key} for identity, key in signing.public_keys()]
    loads = runtime or OnnxRuntime()
    about = {"target": artifact.target.slug, "runtime": loads.name, "chunk_bytes": artifact.chunk_bytes}
    fields = provisioning(device=device.name, keys=keys, report_s=1, **about)
    transport = LoopbackTransport(broker, device.name)
    with Host(fields, transport, loads, folder) as agent:
        until("the trial of the new model", lambda: agent.status()["apps"]["main"]["phase"] == "trial")
        yield agent


def test_a_wake_word_goes_from_upload_to_a_device_that_keeps_its_state(tmp_path: Path) -> None:
    content, x = before_the_sigmoid(wake_word("alexa")), np.stack([stream(8, seed) for seed in range(40)])
    (tmp_path / "m.tflite").write_bytes(content)
    graph = from_tflite(content)
    [source], [target] = ([graph.tensors[name] for name in names] for names in (graph.inputs, graph.outputs))
    version = uploaded("alexa.tflite", content)
    assert version.facts["state_bytes"] == graph.state_bytes
    # The truth is what the model itself says: no form of it may say anything else.
    says = [quant_reference.run_float(graph, quant_reference.dequantize(row, source))[-1] for row in x]
    rows = blobs.store_bytes(npz_of(x, np.array(says, np.float32)))
    dataset = DatasetFactory(sha256=rows.sha256, state=CheckState.CHECKING, facts={})
    checking.check_dataset(dataset.pk)
    dataset.refresh_from_db()
    targets = [TargetFactory(slug=slug, **of).slug for slug, of in WAKE_WORD_TARGETS.items()]
    job = services.submit(version, dataset, targets=targets, max_drop=0.01)
    run_job(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED, job.reason
    assert "onnxruntime keeps nothing" in job.results["raspberry-pi-4"]["sentence"]
    [artifact] = Artifact.objects.all()
    assert artifact.target.slug == "rp2040"
    with delivered(artifact, tmp_path / "device", Loopback(), PlanRuntime()) as agent:
        frames = [quant_reference.dequantize(row, source) for row in x[0]]
        for _ in range(2):
            agent.reset()
            answers = [agent.predict(frame)[1][0][0] for frame in frames]
            assert answers[-1] == pytest.approx(says[0].item(), abs=target.scale / 2)


WAKE_WORD_TARGETS: dict[str, dict[str, str]] = {"rp2040": {"runtime": "micropython"}, "raspberry-pi-4": {}}


def uploaded(name: str, content: bytes) -> ModelVersion:
    """A version that a worker has checked."""
    model = ModelFactory(task="regression")
    files = {"files": SimpleUploadedFile(name, content)}
    answer = api_client(Role.ENGINEER).post(f"/api/v1/models/{model.slug}/versions", files)
    assert answer.status_code == 202, answer.content
    version = model.versions.get()
    checking.check_version(version.pk)
    version.refresh_from_db()
    assert version.state == CheckState.READY, version.reason
    return version


def npz_of(x: np.ndarray, y: np.ndarray) -> bytes:
    """A dataset of which every row may be judged."""
    file = io.BytesIO()
    np.savez(file, x=x, y=y, split=np.arange(len(x)) % 4)
    return file.getvalue()


def test_a_goal_that_is_missed_publishes_nothing_and_says_by_how_much() -> None:
    shuffled = DatasetFactory(sha256=blobs.store_bytes(npz(120, y=np.arange(120) % 5 % 3)).sha256)
    recipe = [{"name": "canonicalise"}]
    job = services.submit(
        VersionFactory(), shuffled, targets=["raspberry-pi-4"], min_accuracy=0.9, recipe=recipe
    )
    run_job(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "is not published" in job.reason
    assert not job.candidates.exclude(artifact=None).exists()


def test_an_attempt_goes_on_with_what_a_killed_one_finished() -> None:
    try:
        with workspace(7, 1) as first:
            (first / "finished").touch()
            with workspace(7, 2) as beside:
                assert beside != first
            raise RuntimeError("the database went away")
    except RuntimeError:
        pass
    with workspace(7, 3) as again:
        assert (again / "finished").exists()
    assert not again.exists()
