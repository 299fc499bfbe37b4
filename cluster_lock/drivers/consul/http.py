"""HTTP to Consul's agents: one aiohttp session, and certificates that are read again when they change."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from yarl import URL

from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused

from .words import Response

_CLOSE_WITHIN = 1.0
_MIB = 2**20
_LONGEST = 64 * _MIB
"""Bytes of what is read: tens of thousands of records."""
_LONGEST_OTHER = _MIB
"""Bytes of any other answer."""
_REFUSES_OURS = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA)")


class ConsulUntrusted(BackendRefused):
    """The certificate of an agent is not one that our CA vouches for."""


@dataclass(frozen=True, slots=True)
class Request:
    """`target`: the path, quoted, with its parameters."""

    method: str
    path: str
    target: str
    headers: Mapping[str, str] | None
    body: bytes


class _Response(aiohttp.ClientResponse):
    """Ends a PUT whose connection broke before the answer came. aiohttp would send it again, silently, when it had
    used the connection before; and it may have been applied."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            if self.method == "GET":
                raise
            raise aiohttp.ClientConnectionError(f"no answer came: {error}") from error


class Http:
    """Make it inside the running loop. `files`: for https."""

    def __init__(self, files: TLSFiles | None) -> None:
        self._files = files
        self._contexts: dict[str, ssl.SSLContext] = {}
        """By agent: what its connections are made with."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none: ours is the only one
            # Agents compress by default: on the way to the next process that only costs both of us.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):  # connections that do not close in time are dropped by the loop
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._session.close()

    def look(self) -> None:
        """Are there new certificates?"""
        if self._files is not None:
            self._files.look()

    async def send(self, url: str, request: Request) -> Response:
        """Once more with new certificates, if it failed and there are new ones."""
        if self._files is None or not url.startswith("https:"):
            return await self._send_once(url, request, True)
        context = self._contexts.setdefault(url, self._files.context)
        try:
            return await self._send_once(url, request, context)
        except (aiohttp.ClientError, OSError):
            self._files.look()
            if context is self._files.context:
                raise
        self._contexts[url] = self._files.context
        return await self._send_once(url, request, self._files.context)

    async def _send_once(self, url: str, request: Request, context: ssl.SSLContext | Literal[True]) -> Response:
        if self._session.closed:
            raise aiohttp.ClientConnectionError("the driver is closed")
        # Never follow a redirect: the token would go along. `encoded`: the path is quoted, "//" and all.
        async with self._session.request(
            request.method,
            URL(url + request.target, encoded=True),
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            ssl=context,  # connections are kept by it: with another one there are new connections
        ) as answer:
            content = await _content(url, answer)
            return Response(answer.status, answer.headers, content.decode(errors="replace"), content)


async def _content(url: str, answer: aiohttp.ClientResponse) -> bytes:
    """The body. Raises BackendUnavailable for one that is larger than any agent's, or compressed, so that nobody knows
    how large it is."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise BackendUnavailable(f"{url} answered in the encoding {encoding[:20]!r}, which nobody asked for")
    limit = _LONGEST if answer.method == "GET" and answer.status == 200 else _LONGEST_OTHER
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > limit:
            answer.close()  # the rest is not waited for
            raise BackendUnavailable(f"{url} answered {answer.status} with more than {limit // _MIB} MiB")
    return bytes(content)


def unreachable(url: str, error: Exception) -> BackendUnavailable | BackendRefused:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConsulUntrusted(f"{url}: the server's certificate is not trusted: {error.certificate_error}")
    # With TLS 1.3 the handshake is over before the server looks at our certificate: its refusal comes as a read error.
    if _REFUSES_OURS.search(str(error)):
        return PermissionRefused(f"{url} does not accept our client certificate, or wants one: {error}")
    return BackendUnavailable(f"{url} is not reachable: {error or type(error).__name__}")
