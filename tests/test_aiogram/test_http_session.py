"""A getUpdates that can be taken back, over the bot's own session, which stays as it is."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import struct
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.base import BaseSession
from aiogram.client.telegram import TEST, TelegramAPIServer
from aiogram.exceptions import TelegramAPIError
from aiogram.methods import GetMe, GetUpdates
from aiohttp import ClientSession, TCPConnector
from support.leadership_double import TermDouble
from support.polling import Handled, dispatcher_with, until, without_sockets

from cluster_lock.aiogram.http_session import GuardedRequest, check_sessions
from cluster_lock.aiogram.poller import Poller
from cluster_lock.errors import LockLost
from cluster_lock.telegram.errors import RequestUnguarded
from cluster_lock.testing.telegram import TelegramSimulator


def fine() -> None:
    """A check that lets the request pass."""


def guarded(bot: Bot, time_left: float = 1.0, *, fresh: bool = False) -> GuardedRequest:
    return GuardedRequest(bot.session, fine, lambda: time_left, fresh=fresh)


class Server:
    """A raw server that keeps what it sees of each connection: its bytes, where it comes from, and how it ended."""

    def __init__(self, answer: bytes = b"") -> None:
        self.received: list[bytearray] = []
        self.peers: list[str] = []
        self.ends: list[str] = []
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = bytearray()
        self.received.append(received)
        self.peers.append(writer.get_extra_info("peername")[0])
        try:
            while data := await reader.read(65536):
                received += data
                writer.write(self._answer)
            self.ends.append("closed")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            writer.close()


def bot_at(url: str | int, number: int = 42, session: type[AiohttpSession] = AiohttpSession, **options: Any) -> Bot:
    url = f"http://127.0.0.1:{url}" if isinstance(url, int) else url
    return Bot(f"{number}:TOKEN", session=session(api=TelegramAPIServer.from_base(url), **options))


def options_of(sock: Any) -> tuple[int, int]:
    """Whether closing resets, and how many ms the kernel tries to deliver."""
    linger, _ = struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    return linger, sock.getsockopt(socket.IPPROTO_TCP, timeout) if timeout is not None else 0


async def test_a_request_under_way_is_reset() -> None:
    """abort() ends the connection with RST, so that the kernel on neither side delivers anything of it later."""
    raw = Server()
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
        bot = bot_at(server.sockets[0].getsockname()[1])
        request = guarded(bot)
        asking = asyncio.ensure_future(request.ask(bot, GetUpdates(timeout=20), 30))
        await until(lambda: raw.received and b"timeout=20" in raw.received[0])
        request.abort()
        await until(lambda: raw.ends == ["reset"])
        asking.cancel()
        await asyncio.wait([asking])
        await bot.session.close()


async def test_a_connection_is_reset_at_the_end_of_a_getupdates_and_as_it_was_after_its_answer() -> None:
    """While a getUpdates is under way SO_LINGER 0 and TCP_USER_TIMEOUT stand on its connection, so that a cancelled one
    is reset; its answer makes it an ordinary connection of the session again."""
    linux = hasattr(socket, "TCP_USER_TIMEOUT")
    async with TelegramSimulator() as simulator:
        bot = bot_at(simulator.url)
        request = guarded(bot, 2.5)
        asking = asyncio.ensure_future(request.ask(bot, GetUpdates(timeout=20)))
        await until(lambda: simulator.bot(42).parked is not None)
        (connection,) = request.connections
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert options_of(sock) == (1, 2500 if linux else 0)
        simulator.push(42)
        await asking
        assert request.connections == []
        assert options_of(sock) == (0, 0)
        await bot.get_me()
        await bot.session.close()
    raw = Server()
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
        bot = bot_at(server.sockets[0].getsockname()[1])
        asking = asyncio.ensure_future(guarded(bot).ask(bot, GetUpdates(timeout=20)))
        await until(lambda: raw.received and b"timeout=20" in raw.received[0])
        asking.cancel()
        await until(lambda: raw.ends == ["reset"])
        await bot.session.close()


async def test_abort_after_the_answer_harms_nobody() -> None:
    """Once an answer was read the connection belongs to the pool again: aborting the old request does nothing."""
    async with TelegramSimulator() as simulator:
        bot = bot_at(simulator.url)
        request = guarded(bot)
        await request.ask(bot, GetUpdates(timeout=0))
        me = asyncio.ensure_future(bot.get_me())
        request.abort()
        assert (await me).id == 42
        await bot.session.close()


async def test_a_fresh_request_uses_no_connection_that_was_used_before() -> None:
    """After a failure no pooled connection is trusted, no matter who used it: it may be the one that leads nowhere."""
    connections: set[Any] = set()
    async with TelegramSimulator() as simulator:
        bot = bot_at(simulator.url)
        await bot.get_me()
        for fresh, number in ((False, 1), (True, 2), (False, 2)):
            request = guarded(bot, fresh=fresh)
            asking = asyncio.ensure_future(request.ask(bot, GetUpdates(timeout=20)))
            await until(lambda: simulator.bot(42).parked is not None)
            (connection,) = request.connections
            assert connection.transport is not None
            connections.add(connection.transport.get_extra_info("sockname"))
            simulator.push(42)
            await asking
            confirming = GetUpdates(offset=simulator.oracle.updates()[-1].update_id + 1, timeout=0)
            await guarded(bot).ask(bot, confirming)
            assert len(connections) == number
        await bot.session.close()


async def test_nobodys_session_is_touched() -> None:
    """After a poll the session, its client and its connector are the same objects with the same attributes, and what
    was under way on them when the polling began ends well."""
    async with TelegramSimulator() as simulator:
        bot = bot_at(simulator.url, limit=3)
        assert isinstance(bot.session, AiohttpSession)
        before = asyncio.ensure_future(bot(GetUpdates(timeout=1)))
        await until(lambda: simulator.bot(42).parked is not None)
        client = await bot.session.create_session()
        assert client.connector is not None
        seen = dict(vars(bot.session)), set(vars(client.connector))
        await check_sessions([bot])
        assert (await guarded(bot).ask(bot, GetMe())).id == 42
        assert await before == []
        assert (dict(vars(bot.session)), set(vars(client.connector))) == seen
        assert await bot.session.create_session() is client
        assert client.connector.limit == 3
        await bot.session.close()


class FromElsewhere(AiohttpSession):
    """Makes its HTTP client by itself, as for a server with two addresses."""

    client: ClientSession | None = None

    async def create_session(self) -> ClientSession:
        if self.client is None:
            self.client = ClientSession(
                connector=TCPConnector(local_addr=("127.0.0.2", 0)), headers={"User-Agent": "from elsewhere"}
            )
        return self.client


async def test_a_getupdates_goes_the_way_of_its_session() -> None:
    """It leaves from the address, and with the headers, that the session gives its own requests."""
    raw = Server(b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"ok":true,"result":[]}')
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
        bot = bot_at(server.sockets[0].getsockname()[1], session=FromElsewhere)
        assert await guarded(bot).ask(bot, GetUpdates()) == []
        assert raw.peers == ["127.0.0.2"]
        assert b"User-Agent: from elsewhere" in raw.received[0]
        assert isinstance(bot.session, FromElsewhere)
        assert bot.session.client is not None
        await bot.session.client.close()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1"])
async def test_a_proxy_stays_in_use(proxy: str) -> None:
    """A getUpdates of a bot behind a proxy goes through the proxy."""
    pytest.importorskip("aiohttp_socks")
    bot = Bot("42:TOKEN", session=AiohttpSession(proxy=proxy))
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        await guarded(bot).ask(bot, GetUpdates(), 5)
    await bot.session.close()


async def test_a_redirect_is_not_followed() -> None:
    """A getUpdates that is redirected is an error, and goes nowhere else: it would arrive there without its offset."""
    raw = Server(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
        bot = bot_at(server.sockets[0].getsockname()[1])
        with pytest.raises(TelegramAPIError, match="HTTP 302: a redirect, which is not followed"):
            await guarded(bot).ask(bot, GetUpdates(offset=7))
        assert [received.count(b"HTTP/1.1") for received in raw.received] == [1]
        await bot.session.close()


async def test_a_session_that_is_too_small_for_its_bots_is_refused() -> None:
    """Bots that share a session with fewer connections than bots would wait for each other for ever: that is said."""
    small, large = AiohttpSession(limit=3), AiohttpSession(limit=0)
    await check_sessions([Bot(f"{number}:TOKEN", session=small) for number in range(1, 3)])
    await check_sessions([Bot(f"{number}:TOKEN", session=large) for number in range(1, 200)])
    with pytest.raises(ValueError, match=r"3 bots share a session .* at most 3 .*limit=0"):
        await check_sessions([Bot(f"{number}:TOKEN", session=small) for number in range(1, 4)])
    await small.close()
    await large.close()


class Retrying(AiohttpSession):
    async def make_request(self, bot: Bot, method: Any, timeout: int | None = None) -> Any:
        try:
            return await super().make_request(bot, method, timeout)
        except TelegramAPIError:
            return await super().make_request(bot, method, timeout)


def replaced() -> AiohttpSession:
    session = AiohttpSession()
    session.make_request = Retrying().make_request  # type: ignore[method-assign]
    return session


class Foreign(BaseSession):
    async def make_request(self, bot: Bot, method: Any, timeout: int | None = None) -> Any: ...
    async def close(self) -> None: ...
    async def stream_content(self, *args: Any, **kwargs: Any) -> Any:
        yield b""


@pytest.mark.parametrize(
    ("session", "why"),
    [
        (lambda: Foreign(api=TEST), "Foreign is not aiogram's AiohttpSession"),
        (Retrying, r"Retrying has a make_request\(\) of its own"),
        (replaced, r"AiohttpSession has a make_request\(\) of its own"),
    ],
    ids=["foreign", "subclass", "replaced"],
)
async def test_a_session_that_makes_requests_in_its_own_way_is_refused(session: Any, why: str) -> None:
    """Its getUpdates would go over a connection that nobody knows: that is said, with what takes such a session."""
    bot = Bot("1:TOKEN", session=session())
    with pytest.raises(RequestUnguarded, match=f"{why}: .* LeaseGate"):
        await check_sessions([bot])
    with pytest.raises(RequestUnguarded, match="LeaseGate"):
        guarded(bot)


async def test_a_poller_sends_nothing_over_a_connection_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that could not be reset ends the term with an error, and no getUpdates is written to it."""
    without_sockets(monkeypatch)
    async with TelegramSimulator() as simulator:
        bot = bot_at(simulator.url)
        simulator.push(42)
        handled = Handled()
        poller, double = Poller(dispatcher_with(simulator, handled), bot), TermDouble()
        double.begin(poller.run)
        assert double.work is not None
        with pytest.raises(RequestUnguarded, match="shows no socket"):
            await asyncio.wait_for(double.work, 10)
        assert (simulator.oracle.polls(), handled.ids) == ([], [])
        await poller.close()
        await bot.session.close()


async def test_a_middleware_may_make_the_request_where_it_likes() -> None:
    """A getUpdates that a middleware makes in a task of its own, and twice at once, is reset with all its copies, and
    none is written after an abort, not even one that is begun later."""
    tasks: list[asyncio.Task[Any]] = []
    clean, again = contextvars.copy_context(), asyncio.Event()

    async def elsewhere(make_request: Any, bot: Bot, method: Any) -> Any:
        async def later() -> Any:
            await again.wait()
            return await make_request(bot, method)

        loop = asyncio.get_running_loop()
        works = make_request(bot, method), make_request(bot, method), later()
        tasks.extend(loop.create_task(work, context=clean) for work in works)
        return await asyncio.shield(tasks[0])

    raw = Server()
    async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
        bot = bot_at(server.sockets[0].getsockname()[1])
        bot.session.middleware.register(elsewhere)
        request = guarded(bot)
        asking = asyncio.ensure_future(request.ask(bot, GetUpdates(timeout=20)))
        await until(lambda: len(raw.received) == 2 and all(b"timeout=20" in each for each in raw.received))
        request.abort()
        asking.cancel()
        await until(lambda: raw.ends == ["reset", "reset"])
        again.set()
        *_, late = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(late, LockLost)
        assert not any(raw.received[2:])
        await bot.session.close()


async def test_a_task_of_a_middleware_inherits_no_lease() -> None:
    """Requests of a task that a session middleware started during a getUpdates are like any others when that is
    over."""
    go, started = asyncio.Event(), list[asyncio.Task[Any]]()

    async def reporting(make_request: Any, bot: Bot, method: Any) -> Any:
        async def report() -> Any:
            await go.wait()
            return await other.get_me()

        if isinstance(method, GetUpdates):
            started.append(asyncio.ensure_future(report()))
        return await make_request(bot, method)

    def is_over() -> None:
        raise LockLost("the lease is over")

    async with TelegramSimulator() as simulator:
        bot, other = bot_at(simulator.url), bot_at(simulator.url, 7)
        bot.session.middleware.register(reporting)
        with pytest.raises(LockLost):
            await GuardedRequest(bot.session, is_over, lambda: 1.0).ask(bot, GetUpdates(timeout=0))
        go.set()
        assert (await started[0]).id == 7
        for each in (bot, other):
            await each.session.close()
