"""A guarded poller on the simulator: real HTTP, real aiogram, a term that the test holds in its hand."""

from __future__ import annotations

import asyncio
import threading
from asyncio import selector_events
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message, Update
from support.aio import PATIENCE
from support.leadership_double import TermDouble

from cluster_lock import clock
from cluster_lock.aiogram.poller import Poller
from cluster_lock.aiogram.rules import Rules
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.testing.telegram import TelegramSimulator
from cluster_lock.testing.telegram.session import TellingSession
from cluster_lock.values import Timing

BOT = 42
TOKEN = f"{BOT}:TEST-TOKEN-THAT-NOBODY-MAY-SEE"

QUICK = Timing(ttl=3, margin=1.2, stop_time=0.6, drain=2, cancel_grace=0.5)
QUICK_TIMES = TelegramTimes(poll_timeout=2, telegram_grace=3)
"""Durations for tests that wait for one of them."""

Handle = Callable[..., Awaitable[Any]]


@dataclass
class Run:
    """One run of the handler."""

    update_id: int
    chat: int
    text: str
    start: float
    end: float | None = None
    outcome: str | None = None


@dataclass
class Handled:
    """What the handler of a test did. `work(message, **data)` is what it does, by default nothing."""

    work: Handle | None = None
    runs: list[Run] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> list[int]:
        return [run.update_id for run in self.runs]

    @property
    def finished(self) -> list[int]:
        return [run.update_id for run in self.runs if run.outcome == "ok"]

    def of(self, update_id: int) -> Run:
        return next(run for run in self.runs if run.update_id == update_id)

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Wait for something about the runs."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self.changed.wait()


class ClientBot(Bot):
    """A bot whose requests tell the simulator who sent them, when, and in which term."""

    def __init__(self, simulator: TelegramSimulator, client: str, token: str = TOKEN) -> None:
        self.client = client
        self.term: int | None = None
        super().__init__(
            token, session=TellingSession(api=TelegramAPIServer.from_base(simulator.url), headers=self._headers)
        )

    def _headers(self) -> dict[str, str]:
        headers = {"X-Cluster-Lock-Client": self.client, "X-Cluster-Lock-Sent": repr(clock.now())}
        if self.term is not None:
            headers["X-Cluster-Lock-Term"] = str(self.term)
        return headers


@asynccontextmanager
async def client_bot(simulator: TelegramSimulator, client: str = "one", token: str = TOKEN) -> AsyncIterator[ClientBot]:
    bot = ClientBot(simulator, client, token)
    try:
        yield bot
    finally:
        await bot.session.close()


def dispatcher_with(simulator: TelegramSimulator, handled: Handled, client: str = "one", **options: Any) -> Dispatcher:
    """A Dispatcher whose one handler writes down what it does, for the test and for the simulator's oracle."""
    dispatcher = Dispatcher(**options)

    @dispatcher.message()
    async def handler(message: Message, event_update: Update, bot: Bot, **data: Any) -> Any:
        run = Run(event_update.update_id, message.chat.id, message.text or "", clock.now())
        handled.runs.append(run)
        handled.change()

        def report() -> None:
            simulator.oracle.handled(
                run.update_id,
                client=client,
                start=run.start,
                end=run.end,
                outcome=run.outcome,
                term=data.get("fencing_token"),
                bot=bot.id,
            )

        report()
        try:
            answer = await handled.work(message, event_update=event_update, bot=bot, **data) if handled.work else None
            run.outcome = "ok"
        except asyncio.CancelledError:
            run.outcome = "cancelled"
            raise
        except Exception:
            run.outcome = "failed"
            raise
        finally:
            run.end = clock.now()
            report()
            handled.change()
        return answer

    return dispatcher


@dataclass
class Polling:
    """A poller at work in a term."""

    simulator: TelegramSimulator
    bot: ClientBot
    handled: Handled
    poller: Poller
    double: TermDouble

    def next_term(self, **options: Any) -> None:
        """Another term of the same poller; the one before is over."""
        self.double = TermDouble(token=self.double.term.fencing_token + 1, **options)
        self.bot.term = self.double.term.fencing_token
        self.double.begin(self.poller.run)

    async def step_down(self, heir: str | None = None) -> dict[str, Any]:
        handover = await self.double.step_down(heir)
        self._ended()
        return handover

    async def lose(self, reason: str = "the key was deleted") -> None:
        await self.double.lose(reason)
        self._ended()

    def _ended(self) -> None:
        self.simulator.oracle.term_ended(self.bot.client, self.double.term.fencing_token)


@asynccontextmanager
async def polling(
    simulator: TelegramSimulator,
    work: Handle | None = None,
    *,
    client: str = "one",
    rules: Rules | None = None,
    timing: Timing = QUICK,
    times: TelegramTimes = QUICK_TIMES,
    dispatcher: Dispatcher | None = None,
    **term: Any,
) -> AsyncIterator[Polling]:
    """A poller in a term, which is lost at the end of the block unless the test has ended it."""
    handled = Handled(work)
    rules = replace(rules or Rules(), timing=timing, times=times)
    async with client_bot(simulator, client) as bot:
        poller = Poller(dispatcher or dispatcher_with(simulator, handled, client), bot, rules)
        double = TermDouble(timing=timing, **term)
        bot.term = double.term.fencing_token
        double.begin(poller.run)
        it = Polling(simulator, bot, handled, poller, double)
        try:
            yield it
        finally:
            if it.double.term.ended is None:
                await it.lose("the test is over")
            await poller.close()


async def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
    """Wait for something that tells nobody."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)


@contextmanager
def simulator_thread() -> Iterator[tuple[TelegramSimulator, Callable[..., None]]]:
    """A simulator with a loop of its own, which goes on while the test's loop is blocked; and how to call it."""
    ready: Future[tuple[TelegramSimulator, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with TelegramSimulator() as simulator:
            stop = asyncio.Event()
            ready.set_result((simulator, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    simulator, loop, stop = ready.result(timeout=PATIENCE)

    def call(method: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        loop.call_soon_threadsafe(partial(method, *arguments, **named))

    try:
        yield simulator, call
    finally:
        call(stop.set)
        thread.join(timeout=10)


def without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's transports show no socket, as those of a loop that is not known here might."""
    shown = selector_events._SelectorTransport.get_extra_info  # type: ignore[attr-defined]

    def hide(self: Any, name: str, default: Any = None) -> Any:
        return None if name == "socket" else shown(self, name, default)

    monkeypatch.setattr(selector_events._SelectorTransport, "get_extra_info", hide)  # type: ignore[attr-defined]
