"""Who is connected to the pages: how many, and how long one is waited for that does not say what it wants.

Descriptors are what the lease is renewed with, so nobody who only looks may use them up; and nobody who fills the
places may keep a probe out, for the leader would be restarted for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CONNECTIONS = 64
"""At a time, besides those that watch a stream, which have a limit of their own."""
HEADER = 5.0
"""Seconds for a whole header, from the connection or from its first byte on."""
ACCEPTED_AT_ONCE = 8
"""In one turn of the loop. So each stays for several turns, however many come: enough to be read and answered."""


class Connections:
    """A factory of protocols, each of which is one of `make`, under these limits. When all places are taken the one
    that has been there longest goes, and the new one is let in."""

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._open: dict[asyncio.BaseTransport, _Connection] = {}

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._make())

    @contextmanager
    def serving(self, transport: asyncio.BaseTransport | None, *, stream: bool) -> Iterator[None]:
        """In the block a request is answered that has come whole. A `stream` is none of the places."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is None:  # gone already
            yield
            return
        connection.hears_nothing()
        connection.busy, connection.stream = True, stream
        try:
            yield
        finally:
            connection.busy = connection.stream = False

    def came(self, connection: _Connection, transport: asyncio.BaseTransport) -> None:
        self._open[transport] = connection
        places = [one for one in self._open.values() if not one.stream]
        if len(places) > CONNECTIONS:
            next((one for one in places if not one.busy), places[0]).drop()

    def went(self, transport: asyncio.BaseTransport) -> None:
        self._open.pop(transport, None)


class _Connection(asyncio.Protocol):
    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.busy = False
        self.stream = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._wait_for_header()
        self._connections.came(self, transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.busy and self._deadline is None:
            self._wait_for_header()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hears_nothing()
        assert self._transport is not None
        self._connections.went(self._transport)
        self._inner.connection_lost(exc)

    def hears_nothing(self) -> None:
        """There is no header that is waited for."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def drop(self) -> None:
        self.hears_nothing()
        assert self._transport is not None
        self._connections.went(self._transport)
        self._transport.abort()

    def _wait_for_header(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEADER, self.drop)
