"""Handled updates per second: the guarded poller against aiogram's own start_polling, same simulator, same handlers.

    python benchmarks/poller.py [--updates 2000] [--rounds 15]

The simulator is a process of its own. The two take turns, and the ratio is the median of those of neighbours, with the
half of them that lies around it: a machine that is shared changes its speed by half from one minute to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message

from cluster_lock.aiogram.poller import Poller
from cluster_lock.election import Term
from cluster_lock.testing.telegram import SimulatorControl
from cluster_lock.values import Origin

CHATS = range(1, 201)
_bots = itertools.count(1000)
Handle = Callable[[Message], Awaitable[Any]]
Run = Callable[[str, str, Handle, "Count"], Awaitable[float]]


async def nothing(message: Message) -> None:
    """A handler that only counts."""


async def reply(message: Message) -> None:
    await message.answer("yes")


async def database(message: Message) -> None:
    """Stands for a query."""
    await asyncio.sleep(0.005)


class Count:
    """Counts handled updates, and knows when all are."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.all = asyncio.Event()

    def one(self) -> None:
        self.left -= 1
        if not self.left:
            self.all.set()


def dispatcher_for(handle: Handle, count: Count) -> Dispatcher:
    dispatcher = Dispatcher(disable_fsm=True)

    @dispatcher.message()
    async def handler(message: Message) -> None:
        await handle(message)
        count.one()

    return dispatcher


async def own(url: str, token: str, handle: Handle, count: Count) -> float:
    """aiogram's start_polling."""
    async with Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        await bot.me()
        dispatcher = dispatcher_for(handle, count)
        began = time.perf_counter()
        polling = asyncio.ensure_future(dispatcher.start_polling(bot, handle_signals=False, close_bot_session=False))
        await count.all.wait()
        took = time.perf_counter() - began
        await dispatcher.stop_polling()
        await polling
    return took


async def guarded(url: str, token: str, handle: Handle, count: Count) -> float:
    """Ours, in a term that does not end."""
    async with Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        await bot.me()
        poller = Poller(dispatcher_for(handle, count), bot)

        async def verify() -> None: ...

        term = Term("x", 1, Origin.RELEASED, {}, stop_at=lambda: float("inf"), stop_time=1, verify=verify)
        began = time.perf_counter()
        polling = asyncio.ensure_future(poller.run(term))
        await count.all.wait()
        took = time.perf_counter() - began
        term.begin_step_down()
        await polling
    return took


ASKED_FOR = {"nothing": 0.97, "reply": 1.0, "5 ms": 1.0}
"""The least ratio of the rates."""
CPU = 1.03
"""The most of the processor's time."""


async def compare(control: SimulatorControl, url: str, name: str, handle: Handle, updates: int, rounds: int) -> bool:
    rates: dict[str, list[float]] = {"aiogram": [], "guarded": []}
    work: dict[str, list[float]] = {"aiogram": [], "guarded": []}
    for number in range(rounds):
        ways: list[tuple[str, Run]] = [("aiogram", own), ("guarded", guarded)]
        for way, run in ways if number % 2 else reversed(ways):
            bot = next(_bots)  # its own: aiogram leaves its last batch unconfirmed
            token = f"{bot}:TOKEN"
            await control.push_many(token, updates, chats=list(CHATS))
            busy = time.process_time()
            rates[way].append(updates / await run(url, token, handle, Count(updates)))
            work[way].append((time.process_time() - busy) / updates * 1e6)
            await control.clear()
    rate, cpu = Ratio(rates), Ratio(work)
    print(f"{name:10} updates/s {rate}, at least {ASKED_FOR[name]}; us of CPU each {cpu}, at most {CPU}", flush=True)
    return rate.median >= ASKED_FOR[name] and cpu.median <= CPU


class Ratio:
    """Of the guarded poller's numbers to aiogram's, by neighbours."""

    def __init__(self, found: dict[str, list[float]]) -> None:
        ratios = [guarded / own for own, guarded in zip(found["aiogram"], found["guarded"], strict=True)]
        self.median = median(ratios)
        self.low, _, self.high = quantiles(ratios, n=4) if len(ratios) > 1 else (*ratios, *ratios, *ratios)
        self.own, self.guarded = median(found["aiogram"]), median(found["guarded"])

    def __str__(self) -> str:
        return (
            f"aiogram {self.own:.0f}, guarded {self.guarded:.0f}: {self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
        )


async def main(updates: int, rounds: int) -> int:
    # Looking for garbage among aiogram's own objects takes a fifth of a second: a lottery in rounds of one second.
    gc.collect()
    gc.freeze()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "cluster_lock.testing.telegram", "--port", port]
    simulator = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - nothing else runs yet
    url = f"http://127.0.0.1:{port}"
    try:
        async with SimulatorControl(url) as control:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    await control.state()
                    break
                await asyncio.sleep(0.1)
            ways = {"nothing": nothing, "reply": reply, "5 ms": database}
            good = [await compare(control, url, name, handle, updates, rounds) for name, handle in ways.items()]
    finally:
        simulator.terminate()
        simulator.wait()
    return int(not all(good))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.updates, arguments.rounds)))
