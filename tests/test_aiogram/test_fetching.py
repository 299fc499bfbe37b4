"""What session middlewares see of a getUpdates, and how often an update is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.middlewares.request_logging import RequestLogging
from aiogram.client.telegram import TelegramAPIServer
from aiogram.methods import GetUpdates
from aiogram.types import Update
from support import aio
from support.leadership_double import TermDouble
from support.polling import BOT, QUICK, TOKEN, polling, until

from cluster_lock import clock
from cluster_lock.aiogram.fetching import FLOOR, REQUEST_SLACK, Fetcher
from cluster_lock.aiogram.http_session import Raw
from cluster_lock.testing.telegram import Fault, TelegramSimulator


class Reading:
    """Reads updates as the poller does, and knows which."""

    def __init__(self, bot: Bot) -> None:
        self.ids: list[int] = []
        self._bot = bot

    def __call__(self, raw: list[Raw]) -> list[Update | str]:
        self.ids += [one["update_id"] for one in raw]
        return [
            "unreadable" if "unreadable" in one else Update.model_validate(one, context={"bot": self._bot})
            for one in raw
        ]


@asynccontextmanager
async def fetcher(simulator: TelegramSimulator) -> AsyncIterator[tuple[Bot, Fetcher, Reading]]:
    async with Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(simulator.url))) as bot:
        read = Reading(bot)
        yield bot, Fetcher(bot, TermDouble().term, QUICK, None, read), read


def ids(raw: list[Raw]) -> list[int]:
    return [one["update_id"] for one in raw]


def answered(*results: str) -> list[Fault]:
    return [Fault(status=200, body=f'{{"ok":true,"result":[{result}]}}') for result in results]


def test_a_middleware_sees_what_it_sees_under_aiogram(caplog: pytest.LogCaptureFixture) -> None:
    """The method is GetUpdates itself and its result are Update objects of the bot: aiogram's RequestLogging leaves it
    out when told so, and one that counts kinds of updates does not make the bot deaf."""
    seen: list[tuple[type, str, Any]] = []

    async def counting(make_request: Any, bot: Bot, method: Any) -> Any:
        result = await make_request(bot, method)
        if isinstance(method, GetUpdates):
            seen.extend((type(method), update.event_type, update.bot) for update in result)
        return result

    async def main() -> None:
        async with TelegramSimulator() as simulator, polling(simulator) as it:
            it.bot.session.middleware.register(counting)
            it.bot.session.middleware.register(RequestLogging(ignore_methods=[GetUpdates]))
            await until(lambda: simulator.bot(BOT).parked is not None)
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            await it.bot.get_me()
            assert seen == [(GetUpdates, "message", it.bot)]

    caplog.set_level("INFO", "aiogram.middlewares")
    aio.run(main())
    assert [record.getMessage() for record in caplog.records if record.name == "aiogram.middlewares"] == [
        "Make request with method='GetMe' by bot id=42"
    ]


async def test_an_update_is_read_once_however_often_it_is_delivered() -> None:
    """What an answer repeats is not read again; an update with the same id and another content is."""
    one, two, three = (f'{{"update_id":{number},"poll_answer":null}}' for number in (1, 2, 3))
    async with TelegramSimulator() as simulator, fetcher(simulator) as (_, fetch, read):
        for fault in answered(f"{one},{two}", f"{one},{two},{three}", '{"update_id":3}'):
            simulator.inject(fault)
        assert ids(await fetch.get_updates(1, timeout=1)) == [1, 2]
        before = fetch.updates([1, 2])
        assert ids(await fetch.get_updates(1, timeout=1)) == [1, 2, 3]
        assert read.ids == [1, 2, 3]
        assert all(update is same for update, same in zip(fetch.updates([1, 2]), before, strict=True))
        await fetch.get_updates(3, timeout=1)
        assert read.ids == [1, 2, 3, 3]


async def test_a_middleware_decides_what_the_poller_gets() -> None:
    """An update that it leaves out, exchanges or adds is left out, exchanged or added; one that cannot be read it does
    not see, and it comes all the same."""
    seen: list[int] = []

    async def deciding(make_request: Any, bot: Bot, method: Any) -> Any:
        result = await make_request(bot, method)
        seen.extend(update.update_id for update in result)
        exchanged = Update(update_id=2, message=None)
        return [exchanged, *result[2:], Update(update_id=9)]

    async with TelegramSimulator() as simulator, fetcher(simulator) as (bot, fetch, _):
        bot.session.middleware.register(deciding)
        for fault in answered('{"update_id":1},{"update_id":2},{"update_id":3,"unreadable":1},{"update_id":4}'):
            simulator.inject(fault)
        raw = await fetch.get_updates(None, timeout=1)
        assert seen == [1, 2, 4]
        assert ids(raw) == [2, 3, 4, 9]
        two, three, four, nine = fetch.updates(ids(raw))
        assert three == "unreadable"
        assert [update and update.update_id for update in (two, four, nine)] == [2, 4, 9]


async def test_an_empty_answer_at_once_is_not_asked_for_in_a_loop() -> None:
    """A server that does not wait for updates, or that heeds no offset, gets a getUpdates each half second at last."""
    async with TelegramSimulator() as simulator, fetcher(simulator) as (_, fetch, _):
        for body in ("", '{"update_id":5}'):
            simulator.inject(Fault(status=200, body=f'{{"ok":true,"result":[{body}]}}', times=None))
            began = clock.now()
            for _ in range(6):
                await fetch.get_updates(6, timeout=1)
            assert clock.now() - began >= 0.1 + 0.2 + 0.4 + FLOOR[1]
            simulator.faults.clear()
            simulator.push(BOT)
            await fetch.get_updates(6, timeout=1)


async def test_what_a_middleware_left_under_way_is_reset() -> None:
    """A copy of a getUpdates that a middleware no longer waits for is reset when the other one was answered: it would
    be on its way when the lease is over."""
    copies: list[asyncio.Task[Any]] = []

    async def hedging(make_request: Any, bot: Bot, method: Any) -> Any:
        copies.extend(asyncio.ensure_future(make_request(bot, method)) for _ in range(2))
        done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    async with TelegramSimulator() as simulator, fetcher(simulator) as (bot, fetch, _):
        bot.session.middleware.register(hedging)
        simulator.inject(Fault("black_hole"))
        pushed = simulator.push(BOT)
        assert ids(await fetch.get_updates(None, timeout=1)) == [pushed]
        done, _ = await asyncio.wait(copies, timeout=REQUEST_SLACK / 2)
        assert sorted(type(copy.exception()).__name__ for copy in done) == ["NoneType", "TelegramNetworkError"]
