"""How long an update waits for its handler beside slow ones: 10 updates a second, one handler in a hundred sleeps 5 s.

    python benchmarks/start_delay.py [--seconds 60] [--rate 10]

What is asked for: 99 of 100 of the others start within 1.2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message, Update

from cluster_lock import clock
from cluster_lock.aiogram import Poller
from cluster_lock.election import Term
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.values import Origin

BOT = 42
SLOW_EVERY, SLOW = 100, 5.0


async def measure(rate: float, seconds: float) -> list[float]:
    """The delays of all updates but the slow ones, in order."""
    started: dict[int, float] = {}
    slow: set[int] = set()
    dispatcher = Dispatcher(disable_fsm=True)

    @dispatcher.message()
    async def handler(message: Message, event_update: Update) -> None:
        started[event_update.update_id] = clock.now()
        if len(started) % SLOW_EVERY == SLOW_EVERY // 2:
            slow.add(event_update.update_id)
            await asyncio.sleep(SLOW)

    async def verify() -> None: ...

    async with TelegramSimulator() as simulator:
        session = AiohttpSession(api=TelegramAPIServer.from_base(simulator.url))
        async with Bot(f"{BOT}:TOKEN", session=session) as bot:
            term = Term("x", 1, Origin.RELEASED, {}, stop_at=lambda: float("inf"), stop_time=1, verify=verify)
            polling = asyncio.ensure_future(Poller(dispatcher, bot).run(term))
            await simulator.traffic_on(BOT, rate=rate, chats=range(1, 1001), seconds=seconds)
            await asyncio.sleep(seconds + 1)
            pushed = {update.update_id: update.pushed for update in simulator.oracle.updates()}
            term.begin_step_down()
            await polling
    return sorted(started[update_id] - pushed[update_id] for update_id in started.keys() - slow)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10)
    arguments = parser.parse_args()
    delays = asyncio.run(measure(arguments.rate, arguments.seconds))
    p99 = delays[int(len(delays) * 0.99)]
    print(
        f"{len(delays)} updates at {arguments.rate:g}/s: median {statistics.median(delays) * 1000:.0f} ms,"
        f" p99 {p99 * 1000:.0f} ms, longest {delays[-1] * 1000:.0f} ms"
    )
    return int(p99 > 1.2)


if __name__ == "__main__":
    sys.exit(main())
