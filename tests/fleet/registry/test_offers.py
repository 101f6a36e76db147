"""The outbox of blobs: what the broker holds, what devices miss, and when it ends."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fleet.registry import blobs, offers
from fleet.registry.models import BlobOffer
from tests.factories import ArtifactFactory

pytestmark = pytest.mark.django_db
NOW = timezone.now()
HOUR = timedelta(hours=1)


def test_an_artifact_is_offered_with_everything_a_device_needs_to_install_it() -> None:
    artifact = ArtifactFactory(content=b"x" * 100_000)
    offers.offer(artifact, artifact.chunk_bytes, NOW + HOUR)
    sizes = {row.sha256: row.bytes for row in offers.due(NOW)}
    assert set(sizes) == {getattr(artifact, field) for field in blobs.ARTIFACT_FIELDS}
    for sha256, size in sizes.items():
        with blobs.open_blob(sha256) as file:
            assert len(file.read()) == size


def test_a_large_artifact_goes_by_https_but_its_index_does_not(settings: Any) -> None:
    settings.BLOB_MQTT_MAX_BYTES = 1000
    artifact = ArtifactFactory()
    offers.offer(artifact, artifact.chunk_bytes, NOW + HOUR)
    offered = set(BlobOffer.objects.values_list("sha256", flat=True))
    assert artifact.transport_sha256 not in offered
    assert artifact.transport_index_sha256 in offered


def _published() -> BlobOffer:
    artifact = ArtifactFactory(content=b"x" * 100_000)
    offers.offer(artifact, artifact.chunk_bytes, NOW + HOUR)
    for row in offers.due(NOW):
        assert offers.mark_published(row, NOW)
    assert not offers.due(NOW).exists()
    return BlobOffer.objects.get(sha256=artifact.transport_sha256)


def test_offering_again_only_prolongs_what_the_broker_holds() -> None:
    row = _published()
    offers._offer(row.sha256, row.bytes, row.chunk_bytes, NOW + 2 * HOUR)
    offers._offer(row.sha256, row.bytes, row.chunk_bytes, NOW)
    row.refresh_from_db()
    assert row.wanted_until == NOW + 2 * HOUR
    assert not row.due


def test_only_missing_chunks_that_exist_go_again() -> None:
    row = _published()
    assert offers.ask_again(row.sha256, row.chunk_bytes, [3, 1, 99, -1])
    assert offers.ask_again(row.sha256, row.chunk_bytes, [2])
    row.refresh_from_db()
    assert (row.due, row.missing) == (True, [1, 2, 3])
    assert not offers.ask_again("0" * 64, row.chunk_bytes, [1])
    assert not offers.ask_again(row.sha256, row.chunk_bytes, [1], now=NOW + 3 * HOUR)


def test_a_chunk_asked_for_while_others_were_published_is_not_forgotten() -> None:
    row = _published()
    offers.ask_again(row.sha256, row.chunk_bytes, [1])
    at_work = offers.due(NOW).get()
    offers.ask_again(row.sha256, row.chunk_bytes, [2])
    assert not offers.mark_published(at_work, NOW)
    assert offers.due(NOW).get().missing == [1, 2]


def test_an_offer_that_nobody_wants_is_withdrawn_unless_it_is_wanted_again_meanwhile() -> None:
    row = _published()
    late = NOW + HOUR + offers.GRACE
    assert row in offers.to_withdraw(late)
    BlobOffer.objects.filter(pk=row.pk).update(wanted_until=late + HOUR)
    assert not offers.mark_withdrawn(row, late)
    row.refresh_from_db()
    assert row.due
    even_later = late + HOUR + offers.GRACE
    assert offers.mark_withdrawn(row, even_later)
    assert offers.forget_withdrawn(even_later + offers.GRACE * 2) == 1


def test_a_withdrawn_blob_is_published_whole_when_it_is_offered_again() -> None:
    row = _published()
    BlobOffer.objects.update(wanted_until=NOW - HOUR)
    assert offers.mark_withdrawn(row, NOW)
    offers._offer(row.sha256, row.bytes, row.chunk_bytes, NOW + HOUR)
    again = offers.due(NOW).get(pk=row.pk)
    assert again.missing == []


def test_a_broker_that_lost_its_disk_gets_everything_again() -> None:
    _published()
    assert offers.mark_all_due() == offers.due(NOW).count() == 6
