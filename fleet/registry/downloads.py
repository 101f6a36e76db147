"""Blobs over HTTP: streamed, in ranges (RFC 9110), and for devices behind a short-lived token of one blob."""

import hmac
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.http import content_disposition_header

from device_agent.core.protocol import is_id
from fleet.errors import Forbidden, NotFound
from fleet.registry import blobs
from fleet.registry.models import Blob

BYTES_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class UnsatisfiableError(Exception):
    """The range asks for bytes that the blob does not have, or for several parts; the text says which."""


# --- tokens --------------------------------------------------------------------------------------


def make_token(sha256: str, device: str, expires_at: datetime) -> str:
    """A token that lets `device` read one blob until a time; short, because it travels in a manifest."""
    expiry = int(expires_at.timestamp())
    return f"{device}.{expiry}.{_seal(sha256, device, expiry)}"


def device_of(token: str, sha256: str, now: datetime | None = None) -> str:
    """The device that the token was made for; Forbidden when it is not good for this blob now."""
    device, _, rest = token.partition(".")
    expiry, _, seal = rest.partition(".")
    if is_id(device) and re.fullmatch(r"[0-9]{1,12}", expiry):
        good = hmac.compare_digest(_seal(sha256, device, int(expiry)).encode(), seal.encode())
        if good and int(expiry) > (now or timezone.now()).timestamp():
            return device
    raise Forbidden(
        "the token does not open this blob, or has expired",
        remedy="The next manifest carries a fresh one; an expired token is no fault of the device.",
    )


def blob_url(sha256: str, device: str, expires_at: datetime) -> str:
    """Where `device` reads a blob that is too large for the broker."""
    return f"{settings.PUBLIC_URL}/api/v1/blobs/{sha256}?token={make_token(sha256, device, expires_at)}"


def _seal(sha256: str, device: str, expiry: int) -> str:
    mac = salted_hmac("fleet.registry.downloads", f"{sha256}|{device}|{expiry}", algorithm="sha256")
    return mac.hexdigest()[:32]


# --- answers -------------------------------------------------------------------------------------


def respond(request: HttpRequest, sha256: str, filename: str = "") -> HttpResponseBase:
    """The blob, or the one range of it that was asked for; as a download when it has a file name."""
    blob = Blob.objects.filter(pk=sha256).first()
    if blob is None or not blobs.exists(sha256):
        raise NotFound(f"blob {sha256[:64]} is not in storage")
    try:
        wanted = _wanted_range(request, sha256, blob.bytes)
    except UnsatisfiableError as error:
        return _unsatisfiable(blob.bytes, str(error))
    start, end = wanted or (0, blob.bytes)
    response = _streamed(request, sha256, start, end)
    if wanted:
        response.status_code = 206
        response["Content-Range"] = f"bytes {start}-{end - 1}/{blob.bytes}"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = f'"{sha256}"'
    if filename:
        response["Content-Disposition"] = content_disposition_header(True, filename) or "attachment"
    return response


def _wanted_range(request: HttpRequest, sha256: str, size: int) -> tuple[int, int] | None:
    header = request.headers.get("Range", "")
    if not header.startswith("bytes=") or request.headers.get("If-Range", f'"{sha256}"') != f'"{sha256}"':
        return None
    return parse_range(header, size)


def parse_range(header: str, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of a `bytes=` range of a blob of `size` bytes, cut at its end."""
    if "," in header:
        raise UnsatisfiableError("one range a request; ask for the parts one after the other")
    match = BYTES_RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.group(1) == match.group(2) == "":
        raise UnsatisfiableError(f"{header[:80]!r} is no range of bytes, such as 'bytes=0-32767'")
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    if start >= end:
        raise UnsatisfiableError(f"{header[:80]!r} holds none of the blob's {size} bytes")
    return start, end


def _unsatisfiable(size: int, reason: str) -> HttpResponse:
    response = HttpResponse(reason, status=416, content_type="text/plain; charset=utf-8")
    response["Content-Range"] = f"bytes */{size}"
    return response


def _streamed(request: HttpRequest, sha256: str, start: int, end: int) -> StreamingHttpResponse:
    pieces = blobs.read_range(sha256, start, end) if request.method != "HEAD" else iter(())
    # Under ASGI Django would gather a plain iterator into memory first.
    body = _from_thread(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(body, content_type="application/octet-stream")
    response["Content-Length"] = str(end - start)
    return response


async def _from_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    take = sync_to_async(lambda: next(pieces, b""), thread_sensitive=False)
    while piece := await take():
        yield piece
