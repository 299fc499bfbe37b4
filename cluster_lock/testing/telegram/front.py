"""From an HTTP request to a query and back: tokens, paths, who the client is, and the injected faults."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from cluster_lock import clock as boot_clock

from . import clocks
from .answers import Answer, error
from .bot_key import BotKey
from .control import PREFIX, Control
from .engine import Engine
from .faults import Fault
from .headers import CLIENT_HEADER, SENT_HEADER, TERM_HEADER
from .history import End, Poll
from .query import Query
from .server import Exchange, arguments_of

NOT_FOUND = error(404, "Not Found")


class BotApi:
    """The site that the simulator serves: /bot{token}[/test]/{method}, and the control under /__sim/."""

    def __init__(self, engine: Engine, control: Control) -> None:
        self._engine = engine
        self._control = control

    async def answer(self, exchange: Exchange) -> Answer | None:
        request = exchange.request
        if request.path.startswith(PREFIX):
            return await self._control.answer(request.path.removeprefix(PREFIX), await request.text())
        path = _parse(request.path)
        if path is None:
            return NOT_FOUND
        token, is_test, method = path
        arguments = await arguments_of(request)
        bot_id = _bot_id(token)
        if bot_id is None:
            return self._refuse_token(token)
        query = Query(
            BotKey(bot_id, is_test),
            token,
            (method or arguments.get("method", "")).lower(),
            arguments,
            _client(request),
            _integer(request.headers.get(TERM_HEADER)),
        )
        if query.method == "getupdates":
            sent = _number(request.headers.get(SENT_HEADER))
            now = boot_clock.now()
            query.poll = exchange.poll = Poll(query.bot, query.client, now, query.term, sent, arguments=arguments)
            self._engine.oracle.poll_arrived(query.poll)
        fault = self._engine.faults.take(query)
        return await self._process(query) if fault is None else await self._suffer(fault, query, exchange)

    def sent(self, exchange: Exchange, answer: Answer) -> None:
        poll = exchange.poll
        if poll is None:
            return
        self._engine.oracle.poll_ended(poll, "answered", answer.status, answer.conflict)
        self._engine.oracle.delivered(poll, answer.update_ids)

    def ended(self, exchange: Exchange, end: End) -> None:
        if exchange.poll is not None:
            self._engine.oracle.poll_ended(exchange.poll, end)

    async def _process(self, query: Query) -> Answer:
        self._engine.answer(query)
        if query.answer is not None:
            return query.answer
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        query.on_answer = lambda answer: None if future.done() else future.set_result(answer)
        return await future

    async def _suffer(self, fault: Fault, query: Query, exchange: Exchange) -> Answer | None:
        answer = await self._process(query) if fault.after_processing else None
        await clocks.sleep(self._engine.clock, fault.delay)
        if fault.action == "delay":
            return answer or await self._process(query)
        if fault.action == "answer":
            return fault.answer()
        if fault.action == "black_hole":
            await exchange.over
        return None

    def _refuse_token(self, token: str) -> Answer:
        """ClientManager.cpp:73-92; api.telegram.org's front end knows the difference no better than 404."""
        if self._engine.modes.front == "cloud":
            return NOT_FOUND
        if not _is_well_formed(token) or token.partition(":")[0].isdecimal():
            return error(401, "Unauthorized: invalid token specified")
        return error(421, "Misdirected Request: unallowed token specified")


def _parse(path: str) -> tuple[str, bool, str] | None:
    """Token, test environment, method; None for a path that is none of ours (HttpConnection.cpp)."""
    token, slash, rest = path.removeprefix("/bot").partition("/")
    if not path.startswith("/bot") or not slash:
        return None
    if not rest.startswith("test"):
        return token, False, rest
    environment, slash, method = rest.partition("/")
    return (token, True, method) if environment == "test" and slash else None


def _is_well_formed(token: str) -> bool:
    return ":" in token and len(token) <= 80 and not token.startswith("0")


def _bot_id(token: str) -> int | None:
    digits = token.partition(":")[0]
    if not _is_well_formed(token) or not digits.isdecimal() or not 0 < int(digits) < 2**54:
        return None
    return int(digits)


def _client(request: web.BaseRequest) -> str:
    """The name that the client gives itself, else its program and connection."""
    name = request.headers.get(CLIENT_HEADER)
    if name:
        return name
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    where = f"{peer[0]}:{peer[1]}" if peer else "a closed connection"
    return f"{request.headers.get('User-Agent', 'unknown')} at {where}"


def _number(text: str | None) -> float | None:
    with contextlib.suppress(ValueError):
        return None if text is None else float(text)
    return None


def _integer(text: str | None) -> int | None:
    with contextlib.suppress(ValueError):
        return None if text is None else int(text)
    return None
