"""`LeaseGate`: for a program that insists on `dispatcher.start_polling`. It holds aiogram's own poller at its
getUpdates."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

from aiogram import Bot
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.client.session.middlewares.manager import RequestMiddlewareManager
from aiogram.methods import GetUpdates, Response, TelegramMethod
from aiogram.methods.base import TelegramType

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election import Leadership, Term
from cluster_lock.telegram.errors import RequestUnguarded
from cluster_lock.values import Timing

from .fetching import time_left
from .http_session import GuardedRequest, why_not_followed
from .poller import lock_name
from .window import starting_window

log = logging.getLogger("cluster_lock.aiogram")


class LeaseGate(BaseRequestMiddleware):
    """An at-most-once gate for aiogram's own poller.

        async with LeaseGate(leadership, bot):
            await dispatcher.start_polling(bot)

    While another instance holds the bot's lock, every getUpdates waits here; nothing is sent. When the lock is lost the
    parked one is aborted, and an answer that comes late is dropped; the next leader goes on behind the last update that
    aiogram has begun. It cannot do more: aiogram confirms updates before their handlers have ended, so a crash loses
    those in flight, and it does not stop handlers, so they may outlive the lock. `start_polling` of this package does
    both. Where it cannot reset a getUpdates it sends none, and leaving the block raises RequestUnguarded; except that a
    session that makes requests in a way of its own makes this one too, which the log says.
    """

    def __init__(self, leadership: Leadership, bot: Bot, *, timing: Timing | None = None) -> None:
        self._leadership, self._bot, self._timing = leadership, bot, timing or Timing()
        self._lock = lock_name(bot)
        self._term: Term | None = None
        self._changed = asyncio.Event()
        self._is_guarded = True
        self._calls: dict[asyncio.Task[Any], GuardedRequest | None] = {}
        self._inherited: int | None = None
        """The offset for the first getUpdates of a term, until that is sent."""
        self._asked: GetUpdates | None = None
        """aiogram's own object: it has one, and moves its offset on as it begins the updates one by one."""
        self._nothing_in_hand = asyncio.Event()
        """aiogram has begun all that it was given: it asks for more, or never had any."""
        self._nothing_in_hand.set()
        self._leading: asyncio.Task[None] | None = None
        self._failure: RequestUnguarded | None = None
        self._failed = asyncio.Event()

    async def __aenter__(self) -> Self:
        reason = why_not_followed(self._bot.session)
        self._is_guarded = reason is None
        if reason is not None:
            log.warning(
                "bot %d: %s, so its getUpdates cannot be reset when the lock is lost, and one that arrives late takes"
                " the next leader's place for a moment",
                self._bot.id,
                reason,
            )
        self._bot.session.middleware.register(self)
        self._leading = asyncio.ensure_future(self._leadership.lead(self._lock, self._hold))
        self._leading.add_done_callback(lambda _: self._change())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._leading is not None
        self._bot.session.middleware.unregister(self)
        self._nothing_in_hand.set()  # what it has not begun by now it never will
        await finish(self._step_down())
        await finish(end([self._leading]))
        if kind is None and not self._leading.cancelled():
            self._leading.result()

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        if not isinstance(method, GetUpdates) or bot.id != self._bot.id:
            return await make_request(bot, method)
        self._asked = method
        self._nothing_in_hand.set()
        while self._failure is None:
            term = await self._wait_for_term()
            answer = await self._ask(term, make_request, bot, method)
            if answer is not None:
                if answer.exception() is None and answer.result():
                    self._nothing_in_hand.clear()
                return cast(Response[TelegramType], answer.result())
            if self._failure is None:
                log.info("bot %d: the lock is gone, a getUpdates was given up", bot.id)
        raise self._failure

    async def _ask(self, term: Term, make_request: Any, bot: Bot, method: GetUpdates) -> asyncio.Task[Any] | None:
        """The answer, or None if it came after the term."""
        if self._inherited is not None:
            method.offset, self._inherited = self._inherited, None
        request = None
        if self._is_guarded:
            request = GuardedRequest(bot.session, term.check, lambda: time_left(term, self._timing))
            make_request = self._by(request, bot, method)
        task: asyncio.Task[Any] = asyncio.ensure_future(make_request(bot, method))
        self._calls[task] = request
        try:
            await asyncio.wait([task])
        finally:
            if request is not None:
                request.abort()  # also what a middleware may have left under way
            if not task.done():
                await finish(end([task]))
            del self._calls[task]
        if not task.cancelled() and isinstance(failure := task.exception(), RequestUnguarded):
            self._failure = failure
            self._failed.set()
            return None
        if term is not self._term or not term.is_valid() or task.cancelled():
            if not task.cancelled():
                task.exception()  # whatever it was, it is nobody's any more
            return None
        return task

    def _by(self, request: GuardedRequest, bot: Bot, method: GetUpdates) -> Any:
        """What stands between us and the session, middlewares that were registered later, with `request` in the place
        of the session."""
        chain, later = list(bot.session.middleware), RequestMiddlewareManager()
        for middleware in chain[chain.index(self) + 1 :] if self in chain else ():
            later.register(middleware)
        timeout = int(bot.session.timeout + (method.timeout or 0)) if bot.session.timeout else None  # as aiogram's
        return later.wrap_middlewares(request.send, timeout=timeout)

    async def _wait_for_term(self) -> Term:
        while self._term is None or not self._term.is_valid():
            assert self._leading is not None
            if self._leading.done() and not self._leading.cancelled():
                self._leading.result()
            changed = self._changed
            try:
                async with asyncio.timeout(0.1 if self._term is not None else None):
                    await changed.wait()
            except TimeoutError:
                continue
        return self._term

    async def _hold(self, term: Term) -> None:
        """The body of a term: open the gate, and close it before the lock is given away."""
        self._inherited = starting_window(term).offset
        self._term = term
        self._change()
        ends = [asyncio.ensure_future(term.wait_step_down()), asyncio.ensure_future(self._failed.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._term = None
            self._change()
            for request in self._calls.values():
                if request is not None:
                    request.abort()
            await finish(end([*ends, *self._calls]))
        if self._failure is not None:
            raise self._failure
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.drain):
                await self._nothing_in_hand.wait()
        offset = self._inherited
        if offset is None and self._asked is not None:
            offset = self._asked.offset
        if offset is not None:
            term.handover.update({"offset": offset, "done": []})

    async def _step_down(self) -> None:
        """Let the lock be given away in good order, to an heir if there is one."""
        term = self._leadership.term(self._lock)
        if term is None:
            return
        term.step_down("the program has stopped polling")
        until = clock.now() + self._timing.drain + self._timing.request
        while self._leadership.term(self._lock) is term and clock.now() < until:  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0.02)

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
