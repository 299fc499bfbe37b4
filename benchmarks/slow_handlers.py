"""How long the updates of others wait beside slow handlers: the guarded poller against aiogram's own start_polling.

    python benchmarks/slow_handlers.py [--seconds 30]

- A busy group: five messages a second, a second of work each, beside two private messages a second.
- A broadcast: one handler that works the whole time, beside ten updates a second.
- One slow handler: the same beside two updates a second, and how often Telegram is asked.

Each with aiogram first and the guarded poller after it, on a simulator in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import quantiles

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message

from cluster_lock.aiogram.poller import Poller
from cluster_lock.election import Term
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.values import Origin

TOKEN = "42:TOKEN"
GROUP = -100
LONG = "broadcast"


class Delays:
    """How long each update of the others has waited until its handler began."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.sent = 0

    def at(self, percent: int) -> float:
        return quantiles(self.seconds, n=100)[percent - 1]

    def __str__(self) -> str:
        p50, p95, most = (seconds * 1000 for seconds in (self.at(50), self.at(95), max(self.seconds)))
        return f"{len(self.seconds)} of {self.sent} handled, p50 {p50:.0f} ms, p95 {p95:.0f} ms, at most {most:.0f} ms"


def dispatcher_for(delays: Delays) -> Dispatcher:
    dispatcher = Dispatcher(disable_fsm=True)

    @dispatcher.message()
    async def handler(message: Message) -> None:
        if message.text == LONG:
            await asyncio.sleep(3600)
        elif message.chat.id == GROUP:
            await asyncio.sleep(1)
        else:
            delays.seconds.append(time.perf_counter() - float(message.text or 0))

    return dispatcher


@asynccontextmanager
async def own(url: str, dispatcher: Dispatcher) -> AsyncIterator[None]:
    async with Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        polling = asyncio.ensure_future(dispatcher.start_polling(bot, handle_signals=False, close_bot_session=False))
        await bot.me()
        yield
        await dispatcher.stop_polling()
        await polling


@asynccontextmanager
async def guarded(url: str, dispatcher: Dispatcher) -> AsyncIterator[None]:
    async def verify() -> None: ...

    async with Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        await bot.me()
        term = Term("x", 1, Origin.RELEASED, {}, stop_at=lambda: float("inf"), stop_time=1, verify=verify)
        polling = asyncio.ensure_future(Poller(dispatcher, bot).run(term))
        yield
        polling.cancel()  # as at a loss: the long handler ends at once
        await asyncio.wait([polling])


async def send(simulator: TelegramSimulator, delays: Delays, seconds: float, *, group: float, others: float) -> None:
    """So many updates a second."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def stream(every: float, push: Callable[[int], None]) -> None:
        number = 0
        while every and loop.time() < until:
            push(number)
            number += 1
            await asyncio.sleep(1 / every)

    def of_others(number: int) -> None:
        delays.sent += 1
        simulator.push(42, chat_id=100 + number % 50, text=repr(time.perf_counter()))

    def of_group(number: int) -> None:
        simulator.push(42, chat_id=GROUP, user_id=1000 + number % 40)

    await asyncio.gather(stream(group, of_group), stream(others, of_others))
    await asyncio.sleep(1)


async def measure(way: str, seconds: float, *, long: bool, group: float, others: float) -> tuple[Delays, float]:
    """The delays, and how often Telegram was asked, per second."""
    delays = Delays()
    async with TelegramSimulator() as simulator:
        poll = guarded if way == "guarded" else own
        async with poll(simulator.url, dispatcher_for(delays)):
            if long:
                simulator.push(42, chat_id=99, text=LONG)
            await asyncio.sleep(0.5)
            before, began = len(simulator.oracle.polls()), time.perf_counter()
            await send(simulator, delays, seconds, group=group, others=others)
            asked = (len(simulator.oracle.polls()) - before) / (time.perf_counter() - began)
        return delays, asked


async def main(seconds: float) -> int:
    good = True
    for name, long, group, others in (
        ("a busy group", False, 5.0, 2.0),
        ("a broadcast", True, 0.0, 10.0),
        ("one slow handler", True, 0.0, 2.0),
    ):
        found = {}
        for way in ("aiogram", "guarded"):
            found[way], asked = await measure(way, seconds, long=long, group=group, others=others)
            print(f"{name:18} {way:8} {found[way]}, {asked:.1f} getUpdates a second", flush=True)
        ours, theirs = found["guarded"], found["aiogram"]
        if name == "a busy group":
            good &= ours.at(95) <= theirs.at(95) + 0.2
        elif name == "a broadcast":
            good &= ours.at(95) <= 0.3
        else:
            good &= ours.at(50) <= 0.12 and asked <= 10
    return int(not good)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    sys.exit(asyncio.run(main(parser.parse_args().seconds)))
