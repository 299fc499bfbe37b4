"""How one `start_polling` is asked to stop: by a signal, by `dispatcher.stop_polling()`, by a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from aiogram import Dispatcher

from cluster_lock.aio import end, finish
from cluster_lock.election.leadership import current_work
from cluster_lock.process import ShutdownManager
from cluster_lock.process.signals import ENDS_WITHIN, ignore_more
from cluster_lock.values import EndCode, EndReason


class PollerStopping:
    """`reason`: of the first who asked. `by_signal`: it was the whole program that was asked. `hurried`: set when
    everything is to end at once. `over`: set when nothing of it is left. `own`: tasks whose end is waited for, so that
    none of them may wait for the whole."""

    def __init__(self) -> None:
        self.reason: EndReason | None = None
        self.by_signal = False
        self.hurried = asyncio.Event()
        self.over = asyncio.Event()
        self.own: set[asyncio.Task[Any] | None] = {asyncio.current_task()}
        self._asked = asyncio.Event()
        self._listeners: list[Callable[[EndReason], object]] = []

    def ask(self, reason: str) -> None:
        """A plain text says that the program was asked to stop."""
        if self.reason is None:
            self.reason = EndReason.of(reason, EndCode.STOPPED)
            self._asked.set()
            for listener in self._listeners:
                listener(self.reason)

    def then(self, listener: Callable[[EndReason], object]) -> None:
        """Call `listener` with the reason when somebody asks; at once if somebody has."""
        self._listeners.append(listener)
        if self.reason is not None:
            listener(self.reason)

    async def wait(self) -> None:
        """Return when somebody has asked."""
        await self._asked.wait()

    async def stop_polling(self) -> None:
        """`Dispatcher.stop_polling`: returns when everything has ended, handlers and shutdown hooks too. Called by what
        has to end for that, such as a handler, it returns at once."""
        self.ask("stop_polling was called")
        if not self._is_waited_for():
            await self.over.wait()

    def _is_waited_for(self) -> bool:
        if asyncio.current_task() in self.own:
            return True
        work = current_work()
        return work is not None and not work[1].done()


_running: WeakKeyDictionary[Dispatcher, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def as_running(dispatcher: Dispatcher) -> AsyncIterator[PollerStopping]:
    """While it is polled here, `dispatcher.stop_polling()` stops us, and `dispatcher.start_polling()`, which would poll
    without a lock, is an error. Who polls it a second time waits for the end of the first, as with aiogram."""

    async def start_polling(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            "this Dispatcher is being polled under a lock: dispatcher.start_polling() would poll without"
        )

    async with _running.setdefault(dispatcher, asyncio.Lock()):
        stopping = PollerStopping()
        ours = {"stop_polling": stopping.stop_polling, "start_polling": start_polling}
        before = {name: vars(dispatcher)[name] for name in ours if name in vars(dispatcher)}
        vars(dispatcher).update(ours)
        try:
            yield stopping
        finally:
            for name in ours:
                del vars(dispatcher)[name]
            vars(dispatcher).update(before)
            stopping.over.set()


@asynccontextmanager
async def signals(stopping: PollerStopping, *, handle: bool, kept: bool) -> AsyncIterator[None]:
    """The first signal asks to stop in good order, the second hurries. `kept`: a second one is a keeper's to hear, and
    its way to end this process."""
    if not handle:
        yield
        return

    async def hurry() -> None:
        stopping.hurried.set()

    async def stop_when_asked() -> None:
        number = await shutdown.wait()
        stopping.by_signal = True
        stopping.ask(number.name if number is not None else "stopping")

    async with ShutdownManager(on_second_signal=hurry, hurries=not kept) as shutdown:
        shutdown.register_signals()
        watching = asyncio.ensure_future(stop_when_asked())
        try:
            yield
        finally:
            await finish(end([watching]))
    if stopping.by_signal:
        ignore_more(ENDS_WITHIN)
