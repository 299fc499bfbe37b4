"""When certificates end. The standard library tells it of the other side's certificate only, so the dates of our own
are read here from their DER form (RFC 5280, 4.1)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from cluster_lock.values import Validity

from .addresses import Address

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION = 0xA0
_VALIDITY = 3
"""Its place behind serial number, algorithm and issuer."""
_LONG = 0x80


def validities(pem: bytes) -> list[Validity]:
    """From when until when each certificate of the file is good. What is no certificate is left out: whether a file
    can be used is OpenSSL's to say."""
    found = []
    for block in _PEM.findall(pem.decode("ascii", "replace")):
        try:
            found.append(_validity(ssl.PEM_cert_to_DER_cert(block)))
        except (ValueError, IndexError, StopIteration):
            continue
    return found


async def shown_by(
    addresses: Sequence[Address], context: ssl.SSLContext, within: float, wish: bytes = b""
) -> dict[str, Validity]:
    """Of the certificates that these show, by address. Who shows none in so many seconds, or one that is not trusted,
    is left out. `wish`: what asks for TLS, where a connection does not begin with it; "S" is a yes."""
    found = await asyncio.gather(*(_shown(address, context, within, wish) for address in addresses))
    return {str(address): each for address, each in zip(addresses, found, strict=True) if each is not None}


async def _shown(address: Address, context: ssl.SSLContext, within: float, wish: bytes) -> Validity | None:
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=None if wish else context)
            try:
                if wish:
                    writer.write(wish)
                    if await reader.read(1) != b"S":
                        return None
                    await writer.start_tls(context, server_hostname=address.host)
                return _validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            finally:
                writer.transport.abort()  # we have what we came for, and a goodbye may never be answered
    except (OSError, TimeoutError):
        return None


def _validity(der: bytes) -> Validity:
    certificate = next(_parts(der))[1]
    fields = [part for part in _parts(next(_parts(certificate))[1]) if part[0] != _VERSION]
    begin, end = (_moment(content.decode("ascii")) for _, content in _parts(fields[_VALIDITY][1]))
    return Validity(begin, end)


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each thing that stands there. Raises IndexError where it ends too early."""
    at = 0
    while at < len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length & _LONG:
            size = length - _LONG
            length, at = int.from_bytes(content[at : at + size], "big"), at + size
        yield tag, content[at : at + length]
        at += length


def _moment(text: str) -> float:
    """Of "YYMMDDhhmmssZ" (until 2049) or "YYYYMMDDhhmmssZ"."""
    if len(text) == len("YYMMDDhhmmssZ"):
        text = f"{'19' if text >= '50' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
