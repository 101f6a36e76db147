"""Blobs over HTTP: ranges as RFC 9110 has them, and tokens that open one blob for one device for a while."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.utils import timezone

from fleet.accounts.roles import Role
from fleet.registry import blobs, downloads
from tests.factories import ArtifactFactory, VersionFactory, api_client, onnx_bytes

pytestmark = pytest.mark.django_db

CONTENT = bytes(range(256)) * 20


def _url(content: bytes = CONTENT, device: str = "pi-1") -> str:
    sha256 = blobs.store_bytes(content).sha256
    return downloads.blob_url(sha256, device, timezone.now() + timedelta(minutes=5)).partition("8000")[2]


def _body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-4095", 0, 4096),
        ("bytes=5000-", 5000, 5120),
        ("bytes=5000-999999", 5000, 5120),
        ("bytes=-20", 5100, 5120),
        ("bytes=-999999", 0, 5120),
    ],
)
def test_one_range_of_a_blob(header: str, start: int, end: int) -> None:
    response = Client().get(_url(), headers={"Range": header})
    assert response.status_code == 206
    assert response["Content-Range"] == f"bytes {start}-{end - 1}/5120"
    assert response["Content-Length"] == str(end - start)
    assert _body(response) == CONTENT[start:end]


@pytest.mark.parametrize(
    "header", ["bytes=5120-", "bytes=-0", "bytes=9-3", "bytes=0-1,4-5", "bytes=-", "bytes=a-b", "bytes=1-2-3"]
)
def test_ranges_that_cannot_be_given_are_refused_with_the_size(header: str) -> None:
    response = Client().get(_url(), headers={"Range": header})
    assert response.status_code == 416
    assert response["Content-Range"] == "bytes */5120"


@pytest.mark.parametrize(
    "headers", [{}, {"Range": "lines=1-2"}, {"Range": "bytes=0-1", "If-Range": '"other"'}]
)
def test_the_whole_blob_when_no_range_applies(headers: dict[str, str]) -> None:
    response = Client().get(_url(), headers=headers)
    assert response.status_code == 200
    assert response["Accept-Ranges"] == "bytes"
    assert _body(response) == CONTENT


def test_a_head_request_says_the_size_and_sends_nothing() -> None:
    response = Client().head(_url())
    assert response["Content-Length"] == "5120"
    assert _body(response) == b""


def test_a_token_opens_one_blob_for_one_device_for_a_while() -> None:
    now = timezone.now()
    one, other = (blobs.store_bytes(content).sha256 for content in (b"one", b"other"))
    token = downloads.make_token(one, "pi-1", now + timedelta(minutes=1))
    assert downloads.device_of(token, one, now) == "pi-1"
    device, expiry, seal = token.split(".")
    forged = [
        f"pi-2.{expiry}.{seal}",
        f"{device}.{int(expiry) + 9}.{seal}",
        f"{device}.{expiry}.",
        "",
        "..",
        "é.1.é",
    ]
    for sha256, text, at in [
        (other, token, now),
        (one, token, now + timedelta(minutes=2)),
        *((one, text, now) for text in forged),
    ]:
        with pytest.raises(downloads.Forbidden, match="does not open"):
            downloads.device_of(text, sha256, at)
    assert Client().get(f"/api/v1/blobs/{one}").status_code == 403


def test_a_token_fits_into_a_manifest() -> None:
    assert len(downloads.blob_url("0" * 64, "d" * 64, timezone.now())) < 280


def test_versions_and_artifacts_download_under_a_plain_name() -> None:
    version, artifact, client = VersionFactory(seed=3), ArtifactFactory(), api_client(Role.VIEWER)
    got = client.get(f"/api/v1/models/{version.model.slug}/versions/1/download")
    assert _body(got) == onnx_bytes(3)
    assert f'filename="{version.model.slug}-v1.onnx"' in got["Content-Disposition"]
    got = client.get(f"/api/v1/artifacts/{artifact.pk}/download", headers={"Range": "bytes=0-9"})
    assert got.status_code == 206
    assert len(_body(got)) == 10


@pytest.mark.django_db(transaction=True)
def test_under_asgi_a_blob_streams_piece_by_piece() -> None:
    content = bytes(3 * blobs.READ_BYTES + 5)
    url = _url(content)

    async def pieces() -> list[int]:
        response = await AsyncClient().get(url)
        return [len(piece) async for piece in response.streaming_content]

    assert async_to_sync(pieces)() == [blobs.READ_BYTES] * 3 + [5]
