"""One signed POST to an address that an administrator allowed; nothing else can be reached this way.

The host must be listed; a name must resolve to public addresses only, and the connection goes to the very address that
was looked at, so a name that changes meanwhile leads nowhere else. Redirects are not followed, and no answer is read.
"""

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.utils.crypto import salted_hmac

from fleet.errors import Refused
from fleet.rollouts.models import Hook, Notice

SECONDS = 8
_PORTS = {"https": 443, "http": 80}
# All that is given out to anybody (RFC 4291), and IPv4 as seen by machines that have none (RFC 6052).
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotTaken(Exception):
    """The other side did not take the message; the text says why."""


def check(url: str) -> SplitResult:
    """The parts of an address that may be told; Refused with the reason otherwise."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"the address cannot be read: {error}", remedy="Write https://host/path.") from None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host or parts.username or parts.password or port == 0:
        raise Refused("the address is not https://host/path", remedy="Leave out user names and passwords.")
    if host not in settings.WEBHOOK_HOSTS:
        raise Refused(
            f"host '{host[:80]}' is not among the hosts that webhooks may lead to",
            remedy="An administrator of the server adds it to WEBHOOK_HOSTS.",
        )
    if parts.scheme == "http" and _literal(host) is None:
        raise Refused("http:// is for addresses written as numbers only", remedy="Use https://.")
    return parts


def secret(hook: Hook) -> str:
    """What signs messages to a hook; derived, so that a copy of the database does not hold it."""
    return salted_hmac("tinyfleet.webhook", str(hook.pk), algorithm="sha256").hexdigest()


def signature(key: str, stamp: int, body: bytes) -> str:
    """HMAC-SHA256 of `stamp.body`, as the header X-Tinyfleet-Signature carries it."""
    return "sha256=" + hmac.new(key.encode(), b"%d." % stamp + body, hashlib.sha256).hexdigest()


def post(notice: Notice, now: datetime) -> None:
    """Send one notice; raises NotTaken."""
    try:
        parts = check(notice.hook.address)
        body = json.dumps(notice.body).encode()
        stamp = int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tinyfleet",
            "X-Tinyfleet-Event": notice.event,
            # The same on every try, so that the receiver can tell a repetition.
            "X-Tinyfleet-Delivery": str(notice.pk),
            "X-Tinyfleet-Timestamp": str(stamp),
            "X-Tinyfleet-Signature": signature(secret(notice.hook), stamp, body),
        }
        status = _status(parts, body, headers)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise NotTaken(f"{type(error).__name__}: {error}"[:300]) from error
    except Refused as error:
        raise NotTaken(error.message) from error
    if not 200 <= status < 300:
        raise NotTaken(f"the answer was {status}")


def _status(parts: SplitResult, body: bytes, headers: dict[str, Any]) -> int:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    reached = socket.create_connection((_address(host, port), port), SECONDS)
    # Whoever answers a byte at a time must not hold a worker. TLS takes the socket over, so the timer has one of its own.
    line = reached.dup()
    patience = threading.Timer(SECONDS, line.shutdown, [socket.SHUT_RDWR])
    patience.daemon = True
    patience.start()
    try:
        if parts.scheme == "https":
            reached = ssl.create_default_context().wrap_socket(reached, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = reached
        connection.request(
            "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers
        )
        return connection.getresponse().status
    finally:
        patience.cancel()
        line.close()
        reached.close()


def _address(host: str, port: int) -> str:
    """The address to connect to; of a name all addresses must be public."""
    literal = _literal(host)
    if literal is not None:
        return str(literal)
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    inner = sorted(address for address in found if not is_public(ipaddress.ip_address(address)))
    if inner or not found:
        raise NotTaken(f"{host} leads to {inner[0] if inner else 'no address'}, which is not public")
    return sorted(found)[0]


def is_public(address: Address) -> bool:
    """Whether an address lies outside of every private network, also where it stands for one of the older kind."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and address.is_global and address.sixtofour is None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
