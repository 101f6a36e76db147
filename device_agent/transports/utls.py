"""Opens the connection of a board. With TLS the broker's authority and host name are checked, and a client certificate is shown when there is one.

mbedTLS on MicroPython reads DER only; the provisioning file holds PEM.
"""
# mypy: disable-error-code="type-arg"

import binascii
import socket
import ssl
import sys


def dialled(broker: dict, timeout_s: int):  # type: ignore[no-untyped-def]
    """A socket connected to the broker, inside TLS when the provisioning file says so; raises OSError."""
    address = socket.getaddrinfo(broker["host"], broker["port"], 0, socket.SOCK_STREAM)[0]
    made = socket.socket(address[0], address[1])
    try:
        made.settimeout(timeout_s)
        made.connect(address[-1])
        return secured(made, broker) if broker.get("tls") else made
    except (OSError, MemoryError):
        made.close()
        raise


def secured(connection, broker: dict):  # type: ignore[no-untyped-def]
    """The connected socket inside TLS; raises OSError unless the broker is who the provisioning file says.

    `broker`: host, ca (PEM, one or more certificates), and with a client certificate also certificate and private_key
    (PEM; SEC1 or PKCS #1, as not every port reads PKCS #8).
    """
    try:
        return _context(broker).wrap_socket(connection, server_hostname=broker["host"])
    except ValueError as error:
        raise OSError("TLS: " + str(error).strip())


def _context(broker: dict):  # type: ignore[no-untyped-def]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    authorities = der_blocks(broker.get("ca") or "")
    if not authorities:
        raise OSError(
            "TLS: broker.ca in the provisioning file holds no certificate; a board has none of its own"
        )
    for authority in authorities:
        context.load_verify_locations(cadata=authority)
    if broker.get("certificate"):
        _show_certificate(context, broker)
    return context


def _show_certificate(context, broker: dict) -> None:  # type: ignore[no-untyped-def]
    if sys.implementation.name != "micropython":
        raise OSError("TLS: this transport shows client certificates on MicroPython only")
    certificates, keys = der_blocks(broker["certificate"]), der_blocks(broker.get("private_key") or "")
    if not certificates or not keys:
        raise OSError("TLS: broker.certificate and broker.private_key must both be PEM")
    context.load_cert_chain(certificates[0], keys[-1])


def der_blocks(pem: str) -> "list[bytes]":
    """The binary content of every PEM block, in order."""
    blocks = []
    for part in pem.split("-----BEGIN ")[1:]:
        body = part.split("-----")[1]
        blocks.append(binascii.a2b_base64("".join(body.split())))
    return blocks
