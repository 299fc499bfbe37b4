"""Connections to Telegram that can be aborted, and one HTTP session for many bots.

What a process wrote may arrive when the process is long dead: 6 s later, seen, after a link was down. A getUpdates that
arrives then takes the new leader's place. So connections are reset and not closed (SO_LINGER 0: the kernel drops what
was not delivered, also when the process dies), and the kernel itself gives up on a getUpdates at the deadline of its
lease (TCP_USER_TIMEOUT, Linux).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from weakref import WeakSet

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiohttp import ClientRequest, TCPConnector
from aiohttp.connector import Connection

_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)

Headers = Callable[[], Mapping[str, str]]


class GuardedRequest:
    """A request that must not outlive its lease. `check` is called between the connecting, which may take seconds, and
    the writing; it raises if the request must not be sent any more. `time_left`: seconds for which the kernel may try
    to deliver it. `fresh`: use no connection that was used before, it may be the one that is broken."""

    def __init__(self, check: Callable[[], None], time_left: Callable[[], float], *, fresh: bool = False) -> None:
        self.check = check
        self.time_left = time_left
        self.fresh = fresh
        self.connection: Connection | None = None

    def abort(self) -> None:
        """Reset the connection while the answer is awaited. (Afterwards the connection is not ours any more.)"""
        transport = self.connection.transport if self.connection is not None else None
        if transport is not None:
            transport.abort()

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """The HTTP request that is made in the block is this one."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[GuardedRequest | None] = ContextVar("cluster_lock_guarded_request", default=None)


class _Guarded(TCPConnector):
    """Adds the rules above to a connector of aiohttp (or of aiohttp-socks)."""

    def __init__(self, *args: Any, cluster_lock_headers: Headers | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extra_headers = cluster_lock_headers
        self._used: WeakSet[Any] = WeakSet()

    async def connect(self, req: ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        request = _current.get()
        connection = await super().connect(req, *args, **kwargs)
        while request is not None and request.fresh and connection.protocol in self._used:
            connection.close()
            connection = await super().connect(req, *args, **kwargs)
        self._used.add(connection.protocol)
        try:
            _set_options(connection.transport, request.time_left() if request is not None else 0.0)
            if request is not None:
                request.check()
                request.connection = connection
        except BaseException:
            connection.close()
            raise
        if self._extra_headers is not None:
            req.headers.update(self._extra_headers())
        return connection


def _set_options(transport: asyncio.BaseTransport | None, time_left: float) -> None:
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return  # closed meanwhile, or not TCP; the request itself finds out
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if _TCP_USER_TIMEOUT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(time_left * 1000))
    except OSError:
        return  # the peer has closed it: the request fails by itself and is tried again


class GuardedSession(AiohttpSession):
    """aiogram's session with the rules of this module, and without a limit of connections: each bot's parked getUpdates
    keeps one for itself, so a pool of 100 starves at a hundred bots.

    `headers` is called for each request at the moment of its writing; for tests and demonstrations.
    """

    def __init__(self, *args: Any, headers: Headers | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        guard_session(self)
        if headers is not None:
            self._connector_init["cluster_lock_headers"] = headers


def guard_session(session: AiohttpSession) -> None:
    """Put the rules of this module on a session that exists, with its proxy, its server and its middlewares."""
    kind = session._connector_type
    if not issubclass(kind, _Guarded):
        session._connector_type = cast(type[TCPConnector], type(f"Guarded{kind.__name__}", (_Guarded, kind), {}))
        session._connector_init["limit"] = 0
        session._should_reset_connector = True


async def prepare_sessions(bots: Iterable[Bot]) -> None:
    """Let all bots whose session is nothing special use one (each has an SSL context of its own, 0.7 MiB), and guard
    what can be guarded: a session that is not aiogram's own is left alone."""
    shared: dict[Any, AiohttpSession] = {}
    for bot in bots:
        session = bot.session
        if not isinstance(session, AiohttpSession):
            continue
        if _is_plain(session):
            same = shared.setdefault((session.api, session.timeout), session)
            if same is not session:
                bot.session = same
                await session.close()
        guard_session(cast(AiohttpSession, bot.session))


def _is_plain(session: AiohttpSession) -> bool:
    return (
        type(session) is AiohttpSession
        and session.proxy is None
        and not len(session.middleware)
        and session.json_loads is json.loads
        and session.json_dumps is json.dumps
    )
