"""HTTP(S) requests to the server, with the standard library only."""

import http.client
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def trust(ca: str | None) -> ssl.SSLContext:
    """TLS that checks host and certificate against the system's authorities, and against `ca` (PEM) when given."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


def request(
    url: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    ca: str | None = None,
    limit_bytes: int,
    timeout_s: float = 15,
) -> tuple[int, bytes]:
    """(status, first `limit_bytes` + 1 bytes of the body) for a GET, or a POST with a body; raises OSError."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OSError(f"{url} is no http or https address")
        asked = urllib.request.Request(url, data=body, headers=headers or {})
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=trust(ca))]
        if parts.hostname in LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        with urllib.request.build_opener(*handlers).open(asked, timeout=timeout_s) as answer:
            return answer.status, answer.read(limit_bytes + 1)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(limit_bytes + 1)
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    except (http.client.HTTPException, ValueError) as error:
        # ValueError: an address that cannot be parsed. HTTPException: an answer that cannot.
        raise OSError(f"{type(error).__name__}: {error}") from error


def fetch_range(url: str, start: int, end: int, ca: str | None = None) -> bytes:
    """Bytes start..end-1 of `url`; raises OSError for anything else."""
    size = end - start
    headers = {"Range": f"bytes={start}-{end - 1}"}
    status, data = request(url, headers=headers, ca=ca, limit_bytes=size)
    if status not in (200, 206):
        raise OSError(f"the server answered {status} to a request for a range")
    if status == 200 and start != 0:
        raise OSError("the server ignores range requests")
    if len(data) < size:
        raise OSError(f"the server sent {len(data)} bytes instead of {size}")
    if len(data) > size and status == 206:
        raise OSError(f"the server sent more than the {size} bytes asked for")
    return data[:size]
