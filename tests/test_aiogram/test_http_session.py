"""Connections that are reset and not closed, and one session for many bots."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import struct
from functools import partial
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TEST, TelegramAPIServer
from aiogram.methods import GetUpdates
from support import aio
from support.leadership_double import TermDouble
from support.polling import Handled, dispatcher_with, until

from cluster_lock.aiogram import http_session
from cluster_lock.aiogram.http_session import GuardedRequest, GuardedSession, prepare_sessions
from cluster_lock.aiogram.poller import Poller
from cluster_lock.errors import RequestUnguarded
from cluster_lock.testing.telegram import TelegramSimulator


def fine() -> None:
    """A check that lets the request pass."""


class Server:
    """A raw server that keeps what it sees of each connection: its bytes, and how it ended."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = bytearray()
        self.received.append(received)
        try:
            while data := await reader.read(65536):
                received += data
            self.ends.append("closed")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            writer.close()


async def connected(request: GuardedRequest) -> None:
    await until(lambda: request.connection is not None)


def has_received(server: Server, connections: int) -> bool:
    return len(server.received) == connections and bool(server.received[-1])


def bot_at(port: int, session: AiohttpSession | None = None) -> Bot:
    api = TelegramAPIServer.from_base(f"http://127.0.0.1:{port}")
    return Bot("42:TOKEN", session=session or GuardedSession(api=api))


def test_a_request_under_way_is_reset() -> None:
    """abort() ends the connection with RST, so that the kernel on neither side delivers anything of it later."""

    async def main() -> None:
        raw = Server()
        async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
            bot = bot_at(server.sockets[0].getsockname()[1])
            request = GuardedRequest(fine, lambda: 1.0)
            with request.as_current():
                asking = asyncio.ensure_future(bot(GetUpdates(timeout=20), request_timeout=30))
            await until(lambda: raw.received and b"timeout=20" in raw.received[0])
            request.abort()
            await until(lambda: raw.ends == ["reset"])
            asking.cancel()
            await asyncio.wait([asking])
            await bot.session.close()

    aio.run(main())


def test_every_connection_is_reset_at_its_end_and_the_kernel_gives_up_on_a_poll_in_time() -> None:
    """SO_LINGER 0 stands on each connection, TCP_USER_TIMEOUT on that of a getUpdates; a cancelled request is reset."""

    async def main() -> None:
        raw = Server()
        async with await asyncio.start_server(raw.serve, "127.0.0.1", 0) as server:
            bot = bot_at(server.sockets[0].getsockname()[1])
            connections: list[Any] = []
            for request in (None, GuardedRequest(fine, lambda: 2.5)):
                seen: list[Any] = []
                guarded = request or GuardedRequest(fine, lambda: 0.0)
                with guarded.as_current():
                    asking = asyncio.ensure_future(bot(GetUpdates(timeout=20), request_timeout=30))
                await connected(guarded)
                assert guarded.connection is not None
                assert guarded.connection.transport is not None
                sock = guarded.connection.transport.get_extra_info("socket")
                seen.append(struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)))
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    wanted = 2500 if request else 0
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == wanted
                assert seen == [(1, 0)]
                await until(partial(has_received, raw, len(connections) + 1))
                connections.append(sock)
                asking.cancel()
                await asyncio.wait([asking])
            await until(lambda: raw.ends == ["reset", "reset"])
            await bot.session.close()

    aio.run(main())


def test_abort_after_the_answer_harms_nobody() -> None:
    """Once an answer was read the connection belongs to the pool again: aborting the old request does nothing."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            bot = Bot("42:TOKEN", session=GuardedSession(api=TelegramAPIServer.from_base(simulator.url)))
            request = GuardedRequest(fine, lambda: 1.0)
            with request.as_current():
                await bot(GetUpdates(timeout=0))
            me = asyncio.ensure_future(bot.get_me())
            request.abort()
            assert (await me).id == 42
            await bot.session.close()

    aio.run(main())


@pytest.mark.slow
def test_a_fresh_request_uses_no_connection_that_was_used_before() -> None:
    """After a failure no pooled connection is trusted: it may be the one that leads nowhere."""

    async def main() -> None:
        connections: set[Any] = set()
        async with TelegramSimulator() as simulator:
            bot = Bot("42:TOKEN", session=GuardedSession(api=TelegramAPIServer.from_base(simulator.url)))
            for fresh in (False, False, True):
                request = GuardedRequest(fine, lambda: 1.0, fresh=fresh)
                with request.as_current():
                    asking = asyncio.ensure_future(bot(GetUpdates(timeout=1)))
                await connected(request)
                assert request.connection is not None
                assert request.connection.transport is not None
                connections.add(request.connection.transport.get_extra_info("sockname"))
                await asking
                assert len(connections) == (2 if fresh else 1)
            await bot.session.close()

    aio.run(main())


def test_plain_bots_share_one_session_and_special_ones_keep_theirs() -> None:
    """Bots with a session like any other use one; a server, a middleware or a proxy of its own keeps a bot apart."""

    async def main() -> None:
        async def middleware(make_request: Any, bot: Any, method: Any) -> Any:
            return await make_request(bot, method)

        plain = [Bot(f"{number}:TOKEN") for number in range(1, 6)]
        testing = Bot("7:TOKEN", session=AiohttpSession(api=TEST))
        special = Bot("8:TOKEN")
        special.session.middleware.register(middleware)
        await prepare_sessions([*plain, testing, special])
        assert len({id(bot.session) for bot in plain}) == 1
        assert len({id(bot.session) for bot in (plain[0], testing, special)}) == 3
        assert len(special.session.middleware) == 1
        assert testing.session.api is TEST
        for bot in (plain[0], testing, special):
            assert isinstance(bot.session, AiohttpSession)
            assert (await bot.session.create_session()).connector is not None
            await bot.session.close()

    aio.run(main())


def test_two_hundred_bots_poll_at_once_over_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that many bots share has no limit of connections: as many parked polls as bots, and room for their
    handlers."""
    monkeypatch.setattr(http_session, "ROOM", 2)

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            api = TelegramAPIServer.from_base(simulator.url)
            bots = [Bot(f"{number}:TOKEN", session=AiohttpSession(api=api)) for number in range(1, 4)]
            await prepare_sessions(bots)
            bots += [Bot(f"{number}:TOKEN", session=bots[0].session) for number in range(4, 201)]
            polls = [asyncio.ensure_future(bot(GetUpdates(timeout=20))) for bot in bots]
            await until(lambda: all(simulator.bot(bot.id).parked is not None for bot in bots), timeout=20)
            assert (await bots[0].get_me()).id == 1
            for poll in polls:
                poll.cancel()
            await asyncio.wait(polls)
            await bots[0].session.close()

    aio.run(main())


def test_a_session_that_is_too_small_for_its_bots_is_refused() -> None:
    """Bots that share a session with fewer connections than bots would wait for each other for ever: that is said."""

    async def main() -> None:
        async def middleware(make_request: Any, bot: Bot, method: Any) -> Any:
            return await make_request(bot, method)

        small = AiohttpSession(limit=3)
        small.middleware.register(middleware)
        await prepare_sessions([Bot(f"{number}:TOKEN", session=small) for number in range(1, 3)])
        with pytest.raises(ValueError, match=r"3 bots share a session .* at most 3 .*limit=0"):
            await prepare_sessions([Bot(f"{number}:TOKEN", session=small) for number in range(1, 4)])
        await small.close()

    aio.run(main())


def test_a_session_is_guarded_without_a_break() -> None:
    """A session that is put under the rules goes on with its connections, and what is under way on it ends well."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            bot = Bot("42:TOKEN", session=AiohttpSession(api=TelegramAPIServer.from_base(simulator.url)))
            before = asyncio.ensure_future(bot(GetUpdates(timeout=1)))
            await until(lambda: simulator.bot(42).parked is not None)
            await prepare_sessions([bot])
            request = GuardedRequest(fine, lambda: 1.0)
            assert (await request.make(bot.session, bot.get_me)).id == 42
            assert await before == []
            await bot.session.close()

    aio.run(main())


def test_a_session_that_is_not_aiograms_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Who brings an HTTP client of his own keeps it, and reads what that costs."""

    class Foreign:
        api = TEST

    async def main() -> None:
        bot = Bot("1:TOKEN")
        foreign: Any = Foreign()
        bot.session = foreign
        await prepare_sessions([bot])
        assert bot.session is foreign

    aio.run(main())
    (said,) = [record.getMessage() for record in caplog.records]
    assert "bot 1 has a session that is not aiogram's own (Foreign): its getUpdates cannot be reset" in said


def test_a_request_whose_connection_is_not_known_is_an_error() -> None:
    """A getUpdates that a middleware makes in a task of its own is an error once it is answered: it could not have been
    reset."""

    async def main() -> None:
        workers: set[asyncio.Task[Any]] = set()
        clean = contextvars.copy_context()

        async def elsewhere(make_request: Any, bot: Bot, method: Any) -> Any:
            workers.add(task := asyncio.get_running_loop().create_task(make_request(bot, method), context=clean))
            return await task

        async with TelegramSimulator() as simulator:
            bot = Bot("42:TOKEN", session=AiohttpSession(api=TelegramAPIServer.from_base(simulator.url)))
            bot.session.middleware.register(elsewhere)
            request = GuardedRequest(fine, lambda: 1.0)
            with pytest.raises(RequestUnguarded, match="connection is not known"):
                await request.make(bot.session, lambda: bot(GetUpdates(timeout=0)))
            await bot.session.close()

    aio.run(main())


def test_a_poller_ends_at_once_when_a_connection_is_not_known() -> None:
    """The first answer over a connection that is not known ends the term, with an error and no further getUpdates."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            plain = AiohttpSession(api=TelegramAPIServer.from_base(simulator.url))
            bot = Bot("42:TOKEN", session=plain)
            http_session._guarded.add(plain)  # and it is not: what put the rules there was of no use
            simulator.push(42)
            handled = Handled()
            poller, double = Poller(dispatcher_with(simulator, handled), bot), TermDouble()
            double.begin(poller.run)
            assert double.work is not None
            with pytest.raises(RequestUnguarded):
                await asyncio.wait_for(double.work, 10)
            assert (len(simulator.oracle.polls()), handled.ids) == (1, [])
            await poller.close()
            await bot.session.close()

    aio.run(main())


def test_the_headers_of_a_request_are_made_when_it_is_written() -> None:
    """The hook for demonstrations and tests is called for each request, after its connection was made."""

    async def main() -> None:
        numbers = iter(range(100))
        async with TelegramSimulator() as simulator:
            session = GuardedSession(
                api=TelegramAPIServer.from_base(simulator.url),
                headers=lambda: {"X-Cluster-Lock-Client": f"number {next(numbers)}"},
            )
            bot = Bot("42:TOKEN", session=session)
            for _ in range(3):
                await bot(GetUpdates(timeout=0))
            clients = [seen.poll.client for seen in simulator.oracle.polls()]
            assert clients == ["number 0", "number 1", "number 2"]
            await bot.session.close()

    aio.run(main())


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_proxy_stays_in_use(proxy: str) -> None:
    """A bot behind a proxy is guarded too, and its requests still go through the proxy."""
    pytest.importorskip("aiohttp_socks")

    async def main() -> None:
        bot = Bot("42:TOKEN", session=AiohttpSession(proxy=proxy))
        await prepare_sessions([bot])
        assert isinstance(bot.session, AiohttpSession)
        assert bot.session.proxy == proxy
        with pytest.raises(Exception, match=r"127\.0\.0\.1"):
            await bot.get_me(request_timeout=5)
        await bot.session.close()

    aio.run(main())
