"""Connections to Telegram that can be aborted, and one HTTP session for many bots.

What a process wrote may arrive when the process is long dead: 6 s later, seen, after a link was down. A getUpdates that
arrives then takes the new leader's place. So connections are reset and not closed (SO_LINGER 0: the kernel drops what
was not delivered, also when the process dies), and the kernel itself gives up on a getUpdates at the deadline of its
lease (TCP_USER_TIMEOUT, Linux).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakSet

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.base import BaseSession
from aiohttp import BaseConnector, ClientOSError, ClientRequest, ClientSession
from aiohttp.connector import Connection

from cluster_lock.errors import RequestUnguarded

_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)

log = logging.getLogger("cluster_lock.aiogram")

Headers = Callable[[], Mapping[str, str]]
Answer = TypeVar("Answer")


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

    async def make(self, session: BaseSession, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to `call()`, which makes this request over `session`. Raises RequestUnguarded if it was answered
        and nobody knows over which connection. A session that is not aiogram's own is believed to know what it does."""
        if not isinstance(session, AiohttpSession):
            return await call()
        guard_session(session)
        with self.as_current():
            answer = await call()
        if self.connection is None:
            raise RequestUnguarded(
                f"a request of {type(session).__name__} was answered, but its connection is not known, so it could not"
                " be reset if the lock were lost: aiogram or aiohttp is a version that does otherwise than is known"
                " here, or a middleware of the session made the request in a task of its own"
            )
        return answer

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """The HTTP request that is made in the block is this one."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[GuardedRequest | None] = ContextVar("cluster_lock_guarded_request", default=None)


_guarded: WeakSet[Any] = WeakSet()
"""The sessions and connectors that follow the rules already."""


def guard_session(session: AiohttpSession, headers: Headers | None = None) -> None:
    """Put the rules of this module on a session that exists. Nothing else changes: its server, proxy, middlewares, and
    what is under way. Whether the libraries use what is put in place here, each guarded request finds out."""
    if session in _guarded:
        return
    create: Callable[[], Awaitable[ClientSession]] = _of(session, "create_session")

    async def create_session() -> ClientSession:
        client = await create()
        if client.connector is not None:
            _guard_connector(client.connector, headers)
        return client

    session.create_session = create_session  # type: ignore[method-assign]
    _guarded.add(session)


def _guard_connector(connector: BaseConnector, headers: Headers | None) -> None:
    if connector in _guarded:
        return
    connect: Callable[..., Awaitable[Connection]] = _of(connector, "connect")
    used: WeakSet[Any] = WeakSet()

    async def guarded(req: ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        request = _current.get()
        connection = await connect(req, *args, **kwargs)
        while request is not None and request.fresh and connection.protocol in used:
            connection.close()
            connection = await connect(req, *args, **kwargs)
        used.add(connection.protocol)
        try:
            if request is not None:
                _set_options(connection.transport, request.time_left())
                request.check()
                request.connection = connection
            else:
                with suppress(OSError, RequestUnguarded):  # only a getUpdates needs them
                    _set_options(connection.transport, 0.0)
        except BaseException:
            connection.close()
            raise
        if headers is not None:
            req.headers.update(headers())
        return connection

    connector.connect = guarded  # type: ignore[method-assign]
    _guarded.add(connector)


def _of(what: object, method: str) -> Any:
    found = getattr(what, method, None)
    if found is None:
        raise RequestUnguarded(f"{type(what).__name__} of this version has no {method}(), so no connection is known")
    return found


def _set_options(transport: asyncio.BaseTransport | None, time_left: float) -> None:
    if transport is None or transport.is_closing():
        return  # the request itself finds out
    sock = transport.get_extra_info("socket")
    if sock is None:
        raise RequestUnguarded(
            f"a connection to Telegram ({type(transport).__name__}) shows no socket, so it cannot be reset if the lock"
            " is lost"
        )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if _TCP_USER_TIMEOUT is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(time_left * 1000))
    except OSError as error:  # the peer may have closed it; then the next connection is better
        raise ClientOSError(error.errno, f"the connection takes no options: {error.strerror}") from error


class GuardedSession(AiohttpSession):
    """aiogram's session with the rules of this module, and without a limit of connections: each bot's parked getUpdates
    keeps one for itself, so a pool of 100 starves at a hundred bots.

    `headers` is called for each request at the moment of its writing; for tests and demonstrations.
    """

    def __init__(self, proxy: Any = None, limit: int = 0, *, headers: Headers | None = None, **kwargs: Any) -> None:
        super().__init__(proxy, limit, **kwargs)
        guard_session(self, headers)


def warn_about_foreign_session(bot: Bot) -> None:
    """Nothing here knows how another kind of session makes its connections."""
    if not isinstance(bot.session, AiohttpSession):
        log.warning(
            "bot %d has a session that is not aiogram's own (%s): its getUpdates cannot be reset when the lock is lost,"
            " and one that arrives late takes the next leader's place for a moment",
            bot.id,
            type(bot.session).__name__,
        )


ROOM = 50
"""Bots on a session with aiogram's own limit of 100 connections: half of them may wait for updates, half do work."""


async def prepare_sessions(bots: Iterable[Bot]) -> None:
    """Let all bots whose session is nothing special use one (each has an SSL context of its own, 0.7 MiB). The others'
    sessions are left alone.

    Raises ValueError if more bots share a session than it may have connections: each waits for updates on one.
    """
    bots = list(bots)
    plain: dict[Any, list[Bot]] = {}
    for bot in bots:
        warn_about_foreign_session(bot)
        if isinstance(bot.session, AiohttpSession) and _is_plain(bot.session):
            plain.setdefault((bot.session.api, bot.session.timeout), []).append(bot)
    for (api, timeout), alike in plain.items():
        before = {id(bot.session): bot.session for bot in alike}
        shared = alike[0].session if len(alike) <= ROOM else GuardedSession(api=api, timeout=timeout)
        for bot in alike:
            bot.session = shared
        for session in before.values():
            if session is not shared:
                await session.close()
    await _refuse_full_sessions(bots)


async def _refuse_full_sessions(bots: list[Bot]) -> None:
    for session, number in Counter(bot.session for bot in bots if isinstance(bot.session, AiohttpSession)).items():
        if number == 1:
            continue
        connector = (await session.create_session()).connector
        if connector is not None and 0 < connector.limit <= number:
            raise ValueError(
                f"{number} bots share a session that has at most {connector.limit} connections, and each of them waits"
                " for updates on one: make it AiohttpSession(limit=0)"
            )


def _is_plain(session: AiohttpSession) -> bool:
    return (
        type(session) is AiohttpSession
        and session.proxy is None
        and not len(session.middleware)
        and session.json_loads is json.loads
        and session.json_dumps is json.dumps
    )
