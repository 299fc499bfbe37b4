"""How long an update waits for its handler beside slow ones: one handler in a hundred sleeps for 5 s.

    python benchmarks/start_delay.py [--rate 10] [--seconds 60]

From the moment the update reaches Telegram (the simulator) to the start of its handler. Target at 10 updates a second:
p99 of the others at most 1.2 s. Above 100 / 5 s = 20 a second the window can fill, and then they must wait.
"""

from __future__ import annotations

import argparse
import asyncio

from aiogram import Bot, Dispatcher
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Update

from cluster_lock import clock
from cluster_lock.aiogram.http_session import GuardedSession
from cluster_lock.aiogram.poller import Poller
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.election import Election
from cluster_lock.session import Session
from cluster_lock.testing.telegram import TelegramSimulator

TOKEN = "42:simulator-token-not-real"


async def measure(rate: float, seconds: float) -> None:
    async with TelegramSimulator() as telegram:
        pushed: dict[int, float] = {}
        started: dict[int, float] = {}
        dispatcher = Dispatcher()

        @dispatcher.update.outer_middleware
        async def note(handler: object, update: Update, data: dict[str, object]) -> None:
            started[update.update_id] = clock.now()
            if update.update_id % 100 == 0:
                await asyncio.sleep(5)

        api = TelegramAPIServer.from_base(telegram.url)
        async with Session(MemoryDriver(), instance="bench") as session:
            http = GuardedSession(api=api)
            poller = Poller(dispatcher, Bot(TOKEN, session=http))
            election = Election(session)
            leading = asyncio.create_task(election.lead(poller.lock, poller.run))
            await asyncio.sleep(1)
            begun, number = clock.now(), 0
            while clock.now() < begun + seconds:
                update_id = telegram.push(TOKEN, chat_id=number % 1000 + 1)
                assert update_id is not None
                pushed[update_id] = clock.now()
                number += 1
                await asyncio.sleep(max(0.0, begun + number / rate - clock.now()))
            await asyncio.sleep(8)
            election.stop()
            await leading
            await http.close()
        delays = sorted(started[one] - at for one, at in pushed.items() if one in started and one % 100)
        print(
            f"{rate:g} updates/s for {seconds:g} s, {len(pushed)} pushed, {len(started)} handled, of which"
            f" {sum(one % 100 == 0 for one in started)} slept 5 s; start delay of the others:"
            f" median {delays[len(delays) // 2]:.3f} s, p99 {delays[int(len(delays) * 0.99)]:.3f} s,"
            f" worst {delays[-1]:.3f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
