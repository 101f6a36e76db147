"""Rows for tests, as the product itself would have made them: real blobs, real facts, hashed tokens."""

import hashlib
import io
import json
from typing import Any

import factory
import numpy as np
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from factory.django import DjangoModelFactory

from compression_jobs.models import Job
from compression_jobs.pipeline.targets import TARGETS
from fleet.accounts.roles import Role
from fleet.accounts.services import make_token
from fleet.inventory.models import Device, DeviceGroup
from fleet.registry import blobs
from fleet.registry.models import Artifact, CheckState, Dataset, Model, ModelVersion, Target
from fleet.registry.presets import columns

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4], "scale": None, "zero_point": None}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 3], "scale": None, "zero_point": None}],
    "task": "classification",
    "classes": ["low", "middle", "high"],
    "normalisation": None,
    "runtime": "onnxruntime",
}
FACTS = {
    "format": "onnx",
    "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}],
    "operators": {"Gemm": 1},
    "parameters": 15,
    "macs": 12,
    "opset": 17,
    "producer": "tests",
    "bytes": 200,
    "quantised": False,
    "problems": [],
}


def npz(rows: int = 60, seed: int = 0, **changes: Any) -> bytes:
    """An `.npz` of `rows` rows with four features and three classes that a linear model tells apart."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 4)).astype(np.float32)
    y = (np.arange(rows) % 3).astype(np.int64)
    x[np.arange(rows), y] += 4
    split = np.array(["train", "calibration", "validation", "test"])[np.arange(rows) // 3 % 4]
    arrays = {"x": x, "y": y, "split": split} | changes
    out = io.BytesIO()
    np.savez(out, **{name: array for name, array in arrays.items() if array is not None})
    return out.getvalue()


def onnx_bytes(seed: int = 0, *, batch: int | str = "n", features: int = 4, classes: int = 3) -> bytes:
    """A tiny `.onnx`: one dense layer that answers with the largest of the first features."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.eye(features, classes, dtype=np.float32)
    weights += np.random.default_rng(seed).normal(scale=0.01, size=weights.shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(classes, np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


class UserFactory(DjangoModelFactory[User]):
    """A person; `UserFactory(roles=[Role.ENGINEER])`."""

    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"person-{n}")

    @factory.post_generation
    def roles(self: Any, create: bool, extracted: list[Role] | None, **kwargs: Any) -> None:
        """Put the person into the groups of their roles."""
        for role in extracted or []:
            self.groups.add(Group.objects.get_or_create(name=role)[0])


def api_client(*roles: Role, user: User | None = None) -> Client:
    """A client that sends the API token of a person with these roles."""
    owner = user or UserFactory(roles=list(roles))
    _, text = make_token(owner, "tests")
    return Client(headers={"Authorization": f"Bearer {text}"})


class TargetFactory(DjangoModelFactory[Target]):
    """A preset target, by slug; under another slug, a board of one's own like a Raspberry Pi 4."""

    class Meta:
        model = Target
        django_get_or_create = ("slug",)

    slug = "raspberry-pi-4"

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        preset = TARGETS.get(kwargs["slug"], TARGETS["raspberry-pi-4"])
        defaults = {**columns(preset), "is_preset": kwargs["slug"] in TARGETS}
        return super()._create(model_class, *args, **{**defaults, **kwargs})


class ModelFactory(DjangoModelFactory[Model]):
    """A model."""

    class Meta:
        model = Model

    slug = factory.Sequence(lambda n: f"model-{n}")
    name = factory.LazyAttribute(lambda made: made.slug)


class VersionFactory(DjangoModelFactory[ModelVersion]):
    """A version that passed its check; its blob is a real tiny ONNX file."""

    class Meta:
        model = ModelVersion

    class Params:
        seed = factory.Sequence(lambda n: n)

    model = factory.SubFactory(ModelFactory)
    number = factory.LazyAttribute(lambda made: made.model.versions.count() + 1)
    state = CheckState.READY
    filename = "tiny.onnx"
    sha256 = factory.LazyAttribute(lambda made: blobs.store_bytes(onnx_bytes(made.seed)).sha256)
    upload_sha256 = factory.LazyAttribute(lambda made: made.sha256)
    bytes = 200
    facts = FACTS
    signature = factory.LazyAttribute(lambda made: {name: FACTS[name] for name in ("inputs", "outputs")})


class DatasetFactory(DjangoModelFactory[Dataset]):
    """A dataset that passed its check; its blob is a real `.npz`."""

    class Meta:
        model = Dataset

    class Params:
        seed = factory.Sequence(lambda n: n)

    name = factory.Sequence(lambda n: f"data-{n}")
    state = CheckState.READY
    filename = "data.npz"
    sha256 = factory.LazyAttribute(lambda made: blobs.store_bytes(npz(seed=made.seed)).sha256)
    bytes = 2000
    facts = factory.LazyAttribute(lambda made: dataset_facts(made.sha256))


def dataset_facts(sha256: str) -> dict[str, Any]:
    """What the pipeline says of the stored dataset."""
    from compression_jobs.pipeline.dataset import describe_dataset

    with blobs.path_for_child(sha256, suffix=".npz") as path:
        return describe_dataset(path)


def _measurements() -> dict[str, Any]:
    accuracy = {"value": 0.95, "low": 0.91, "high": 0.97, "n": 250}
    return {
        "accuracy": accuracy,
        "reference_accuracy": {**accuracy, "value": 0.96},
        "drop": {"value": 0.01, "low": -0.01, "high": 0.02},
        "test_accuracy": accuracy,
        "parameters": 15,
        "macs": 12,
        "peak_ram_bytes": 4096,
        "host_latency_us": {"p50": 11.0, "p95": 14.0},
        "shown": True,
        "notes": [],
    }


class ArtifactFactory(DjangoModelFactory[Artifact]):
    """A published artifact whose blobs and chunk indexes are in storage; `content=b"..."` sets its bytes."""

    class Meta:
        model = Artifact

    class Params:
        content = factory.Sequence(lambda n: f"artifact {n} ".encode() * 5000)
        self_test = b"self-test" * 100

    version = factory.SubFactory(VersionFactory)
    target = factory.SubFactory(TargetFactory)
    format = "onnx"
    signature = SIGNATURE
    measurements = factory.LazyFunction(_measurements)
    lineage = factory.LazyAttribute(lambda made: {"parent": made.version.sha256, "seed": 0})

    sha256 = factory.LazyAttribute(lambda made: blobs.store_bytes(made.content).sha256)
    bytes = factory.LazyAttribute(lambda made: len(made.content))
    transport_sha256 = factory.LazyAttribute(lambda made: made.sha256)
    transport_bytes = factory.LazyAttribute(lambda made: made.bytes)
    chunk_bytes = factory.LazyAttribute(lambda made: made.target.chunk_bytes)
    transport_index_sha256 = factory.LazyAttribute(lambda made: store_index(made.content, made.chunk_bytes))
    self_test_sha256 = factory.LazyAttribute(lambda made: blobs.store_bytes(made.self_test).sha256)
    self_test_bytes = factory.LazyAttribute(lambda made: len(made.self_test))
    self_test_index_sha256 = factory.LazyAttribute(lambda made: store_index(made.self_test, made.chunk_bytes))
    signature_sha256 = factory.LazyAttribute(lambda made: blobs.store_bytes(spec_of(made)).sha256)
    signature_bytes = factory.LazyAttribute(lambda made: len(spec_of(made)))
    signature_index_sha256 = factory.LazyAttribute(lambda made: store_index(spec_of(made), made.chunk_bytes))


def spec_of(made: Any) -> bytes:
    """The signature as it is stored."""
    return json.dumps(made.signature, separators=(",", ":"), sort_keys=True).encode()


def store_index(content: bytes, chunk_bytes: int) -> str:
    """Store one SHA-256 a chunk of `content`; the SHA-256 of that blob."""
    chunks = (content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes))
    return blobs.store_bytes(b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)).sha256


class JobFactory(DjangoModelFactory[Job]):
    """A queued job for one target."""

    class Meta:
        model = Job
        skip_postgeneration_save = True

    version = factory.SubFactory(VersionFactory)
    dataset = factory.SubFactory(DatasetFactory)
    goals = factory.LazyFunction(lambda: {"min_accuracy": 0.5, "max_drop": None, "objective": "bytes"})
    fingerprint = factory.Sequence(lambda n: hashlib.sha256(str(n).encode()).hexdigest())
    queued_at = factory.LazyFunction(timezone.now)

    @factory.post_generation
    def targets(self: Any, create: bool, extracted: list[Target] | None, **kwargs: Any) -> None:
        """Its targets; one Raspberry Pi unless told otherwise."""
        self.targets.set(extracted or [TargetFactory()])


class GroupFactory(DjangoModelFactory[DeviceGroup]):
    """A group of devices."""

    class Meta:
        model = DeviceGroup

    slug = factory.Sequence(lambda n: f"group-{n}")
    name = factory.LazyAttribute(lambda made: made.slug)


class DeviceFactory(DjangoModelFactory[Device]):
    """An enrolled device; `DeviceFactory(groups=[group])`."""

    class Meta:
        model = Device
        skip_postgeneration_save = True

    name = factory.Sequence(lambda n: f"device-{n}")
    target = factory.SubFactory(TargetFactory)

    @factory.post_generation
    def groups(self: Any, create: bool, extracted: list[DeviceGroup] | None, **kwargs: Any) -> None:
        """The groups it is in by hand."""
        self.groups.set(extracted or [])
