"""A connection that is reset and not closed, borrowed from a pool for one request."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import BaseConnector, ClientOSError, ClientRequest, TraceConfig
from aiohttp.connector import Connection

from cluster_lock.telegram.errors import RequestUnguarded

_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_LINGER = struct.Struct("hh" if os.name == "nt" else "ii")


class OneConnection(BaseConnector):
    """Where a ClientSession gets the connection of one request: out of `pool`, and reset at its end unless it is given
    back. `check` is called when it is connected, and raises if nothing may be written any more. `time_left`: seconds
    for which the kernel may try to deliver what is written. `fresh`: take none that was used before."""

    def __init__(
        self, pool: BaseConnector, check: Callable[[], None], time_left: Callable[[], float], *, fresh: bool
    ) -> None:
        super().__init__()
        self.allowed_protocol_schema_set = pool.allowed_protocol_schema_set
        self._pool, self._check, self._time_left = pool, check, time_left
        self.connection: Connection | None = None
        """The latest; without a transport once its answer was read."""
        self._reused = False
        self._tracing = TraceConfig() if fresh else None
        self._borrowed: Borrowed | None = None

    @property
    def tracing(self) -> list[TraceConfig]:
        """For the ClientSession: only it hears whether a connection was used before."""
        if self._tracing is None:
            return []
        self._tracing.on_connection_reuseconn.append(self._is_reused)
        return [self._tracing]

    async def connect(self, req: ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        """Raises RequestUnguarded if the connection could not be reset, and what `check` raises."""
        while True:
            self._reused = False
            connection = await self._pool.connect(req, *args, **kwargs)
            if not self._reused:
                break
            connection.close()
        try:
            self._borrowed = Borrowed(connection.transport, self._time_left())
            self._check()
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        return connection

    async def _is_reused(self, *_: Any) -> None:
        self._reused = True

    def abort(self) -> None:
        """Reset it while the answer is awaited. Afterwards it is not ours any more, and nothing happens."""
        transport = self.connection.transport if self.connection is not None else None
        if transport is not None:
            transport.abort()

    def give_back(self) -> None:
        """The answer was read: the connection is the pool's again, and is made what it was."""
        if self._borrowed is not None:
            self._borrowed.undo()


class Borrowed:
    """A transport that drops what it has not delivered: when it is closed, and after `time_left` seconds."""

    def __init__(self, transport: asyncio.BaseTransport | None, time_left: float) -> None:
        self._transport = transport
        self._before: list[tuple[int, int, int | bytes]] = []
        if transport is None or transport.is_closing():
            return  # the request itself finds out
        sock = transport.get_extra_info("socket")
        if sock is None:
            raise RequestUnguarded(
                f"a connection to Telegram ({type(transport).__name__}) shows no socket, so it cannot be reset if the"
                " lock is lost"
            )
        try:
            self.set_options(sock, time_left)
        except OSError as error:  # the peer may have closed it; then the next connection is better
            raise ClientOSError(error.errno, f"the connection takes no options: {error.strerror}") from error

    def set_options(self, sock: Any, time_left: float) -> None:
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        self._before.append((socket.SOL_SOCKET, socket.SO_LINGER, before))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
        if _TCP_USER_TIMEOUT is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            before = sock.getsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
            self._before.append((socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, before))
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(time_left * 1000))

    def undo(self) -> None:
        """Nothing of ours is under way on it any more."""
        if self._transport is None or self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        with suppress(OSError):  # it was closed by the peer
            for level, option, value in self._before:
                sock.setsockopt(level, option, value)
