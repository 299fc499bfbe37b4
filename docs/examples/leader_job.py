"""A job that runs on the leader only: APScheduler beside a bot that runs on many servers.

The scheduler lives as long as a term: it is made when this instance begins to lead and stopped when it steps down. A
run that is under way then is cancelled, one that would fall between two leaders is left out. One could run twice only
if the leader changes at its very moment and the servers' clocks disagree: what must never happen twice says in its
database that it is done, as in lock_without_bot.py.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from cluster_lock import Term
from cluster_lock.aiogram import start_polling

API = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
CHAT = int(os.environ["DIGEST_CHAT"])
EVERY = float(os.environ.get("DIGEST_EVERY", "86400"))  # seconds
COLLECTING = float(os.environ.get("DIGEST_COLLECTING", "2"))  # seconds
# All instances count from the same moment. Counted from the start of each scheduler, a daily job would be put off by
# every change of the leader.
FIRST = datetime(2025, 1, 1, 9, 0, tzinfo=UTC)

log = logging.getLogger("leader_job")

Job = Callable[[Bot, Term], Coroutine[Any, Any, None]]


async def digest(bot: Bot, term: Term) -> None:
    await asyncio.sleep(COLLECTING)  # stands for the real work
    term.check()  # the last look before something that cannot be undone: raises LockLost
    await bot.send_message(CHAT, f"Digest of {socket.gethostname()}, pid {os.getpid()}, term {term.fencing_token}")


async def run_jobs(bot: Bot, term: Term) -> None:
    # APScheduler skips what it could not begin within a second, unless it is told otherwise.
    scheduler = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": 60})
    scheduler.add_job(one_run, "interval", [digest, bot, term], seconds=EVERY, start_date=FIRST, name="digest")
    scheduler.start()
    try:
        await term.wait_step_down()
    finally:  # also when the lease is lost: then this is cancelled
        scheduler.shutdown(wait=False)


async def one_run(job: Job, bot: Bot, term: Term) -> None:
    # The scheduler cancels what still runs at its shutdown, but waits for nothing. A task of the term is waited for:
    # no other instance leads before it has ended. (What runs in a thread cannot be cancelled: keep jobs async.)
    try:
        await term.spawn(job(bot, term))
    except asyncio.CancelledError:
        log.info("%s was cut off: this instance steps down", job.__name__)


async def elected(bot: Bot, term: Term) -> None:
    term.spawn(run_jobs(bot, term))


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    dispatcher = Dispatcher(disable_fsm=True)  # with your routers, as ever
    bot = Bot(os.environ["TELEGRAM_BOT_TOKEN"], session=AiohttpSession(api=TelegramAPIServer.from_base(API)))
    await start_polling(dispatcher, bot, on_elected=elected)


if __name__ == "__main__":
    asyncio.run(main())
