"""The bot of the demo, as `python -m bot start --app bot.demo.app:dispatcher` runs it.

An aiogram bot like any other, that tells the simulator what it handles and the harness how it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update
from aiohttp import ClientError

from cluster_lock import clock
from cluster_lock.aiogram import lock_name
from cluster_lock.election import Leadership, Role, Term
from cluster_lock.testing.telegram import CLIENT_HEADER, SENT_HEADER, TERM_HEADER, SimulatorControl
from cluster_lock.testing.telegram.session import TellingSession

from .instance import client_name
from .launch import INSTANCE, SIMULATOR, STATUS_PORT
from .status import EVERY, Status, StatusSender

log = logging.getLogger("bot.demo")

USUAL_WORK, SLOW_WORK = 0.01, 0.3
SLOW_EVERY = 25
"""One update in so many takes long, so that a fault always finds work under way."""

LAST_WORD = 0.3
"""Seconds for the word that a term is over. The lock waits for it, so it may not take longer."""

dispatcher = Dispatcher(disable_fsm=True)


class Reporter:
    """This process, as the harness and the simulator's oracle hear of it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.client = client_name(environ[INSTANCE], os.getpid())
        self.telegram = SimulatorControl(environ[SIMULATOR])
        self.handled = 0
        self._sender = StatusSender(int(environ[STATUS_PORT]))
        self._lost: list[int] = []
        self._leadership: Leadership | None = None
        self._lock = ""
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, bot: Bot, leadership: Leadership) -> None:
        self._leadership, self._lock = leadership, lock_name(bot)
        self._tasks = [
            asyncio.create_task(self._tell_status()),
            asyncio.create_task(leadership.run(self._follow, self._lock)),
        ]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sender.close()
        await self.telegram.close()

    def headers(self) -> dict[str, str]:
        """Who writes this request, when, in which term. Called at the moment of the writing."""
        term = self._term
        mine = {CLIENT_HEADER: self.client, SENT_HEADER: f"{clock.now():.6f}"}
        return mine if term is None else {**mine, TERM_HEADER: str(term.fencing_token)}

    async def _follow(self, term: Term) -> None:
        """Runs as long as a term, and tells the oracle of its end before the lock is given away."""
        try:
            await asyncio.Event().wait()
        finally:
            until = None
            if term.ended is not None:  # before its work was over: it was lost
                self._lost.append(term.fencing_token)
                until = term.deadline
            await self._tell_end(term.fencing_token, until)

    async def _tell_end(self, term: int, at: float | None) -> None:
        try:
            async with asyncio.timeout(LAST_WORD):
                await self.telegram.term_ended(self.client, term, at=at)
        except (TimeoutError, ClientError) as error:
            log.warning("the oracle does not know that term %d is over: %r", term, error)

    async def _tell_status(self) -> None:
        while True:
            self._sender.send(self._status())
            await asyncio.sleep(EVERY)

    def _status(self) -> Status:
        role = self._leadership.role(self._lock) if self._leadership is not None else Role.STANDBY
        term = self._term
        return Status(
            client=self.client,
            role=str(role),
            term=term.fencing_token if term is not None else None,
            left=term.remaining if term is not None else 0.0,
            handled=self.handled,
            lost=tuple(self._lost),
            at=clock.now(),
        )

    @property
    def _term(self) -> Term | None:
        return self._leadership.term(self._lock) if self._leadership is not None else None


@dispatcher.startup()
async def started(bot: Bot, dispatcher: Dispatcher, leadership: Leadership) -> None:
    dispatcher["reporter"] = reporter = Reporter(os.environ)
    plain = bot.session
    bot.session = TellingSession(api=plain.api, headers=reporter.headers)
    await plain.close()
    reporter.begin(bot, leadership)


@dispatcher.shutdown()
async def stopped(dispatcher: Dispatcher) -> None:
    await dispatcher["reporter"].end()


@dispatcher.message()
async def numbered(message: Message, event_update: Update, fencing_token: int, reporter: Reporter) -> None:
    """Some work, reported to the oracle from its beginning to its end."""
    async with reporter.telegram.handling(event_update.update_id, client=reporter.client, term=fencing_token):
        is_slow = event_update.update_id % SLOW_EVERY == 0
        await asyncio.sleep(SLOW_WORK if is_slow else USUAL_WORK)
    reporter.handled += 1
