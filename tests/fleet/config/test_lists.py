"""Lists of the API cost as many queries for many rows as for few."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from compression_jobs.models import Candidate, Job
from fleet.accounts.roles import Role
from fleet.inventory.models import DeviceApp
from fleet.registry.services import move_alias
from fleet.rollouts.models import Delivery, Rollout, Wave
from fleet.telemetry.models import Alert
from tests.factories import ArtifactFactory, DeviceFactory, GroupFactory, JobFactory, api_client

pytestmark = pytest.mark.django_db


LISTS = (
    "models",
    "datasets",
    "targets",
    "artifacts",
    "jobs",
    "jobs/{job}/candidates",
    "devices",
    "groups",
    "alerts",
    "rollouts",
    "rollouts/{rollout}",
    "rollouts/{rollout}/deliveries",
    "tokens?everyone=true",
)


def add_one_of_everything(job: Job, rollout: Rollout) -> None:
    """One row more in each list, with relations of its own."""
    device = DeviceFactory(groups=[GroupFactory()], labels={"site": "berlin"})
    ruled = GroupFactory(rule="site=berlin")
    artifact = ArtifactFactory()
    move_alias(artifact.version.model, "champion", artifact.version)
    DeviceApp.objects.create(device=device, artifact=artifact, artifact_sha256=artifact.sha256)
    JobFactory(version=artifact.version)
    Candidate.objects.create(job=job, target=artifact.target, key=str(device.pk), bytes=1, artifact=artifact)
    Alert.objects.create(kind=Alert.Kind.OVERDUE, device=device, sentence="it is silent")
    Rollout.objects.create(version=artifact.version, group=ruled)
    wave = Wave.objects.create(rollout=rollout, number=device.pk)
    Delivery.objects.create(rollout=rollout, wave=wave, device=device, changed_at=timezone.now())


def test_the_number_of_queries_does_not_grow_with_the_rows() -> None:
    client = api_client(Role.ADMIN)
    job = JobFactory()
    rollout = Rollout.objects.create(version=job.version, group=GroupFactory())

    def cost(path: str) -> int:
        with CaptureQueriesContext(connection) as seen:
            address = path.format(job=job.pk, rollout=rollout.pk)
            assert client.get(f"/api/v1/{address}").status_code == 200
        return len(seen)

    add_one_of_everything(job, rollout)
    cost("me")  # the first call of a token notes its use
    before = {path: cost(path) for path in LISTS}
    for _ in range(3):
        add_one_of_everything(job, rollout)
    assert {path: cost(path) for path in LISTS} == before
