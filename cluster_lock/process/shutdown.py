"""Stopping a program in order: what was started last is stopped first, and nothing may hold up the rest."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import functools
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from cluster_lock import clock
from cluster_lock.aio import finish

from .signals import StopSignals, call_in

logger = logging.getLogger("cluster_lock.process")

Callback = Callable[[], Awaitable[object] | object]
AnyCallback = TypeVar("AnyCallback", bound=Callback)

_GRACE = 0.5
"""What a callback gets to end once its time is over and it was cancelled."""


# The loop itself holds on to its tasks by weak references only.
_left_behind: set[asyncio.Task[object]] = set()


@dataclass(frozen=True, slots=True)
class _Registered:
    callback: Callback
    name: str
    timeout: float


class ShutdownManager:
    """Runs callbacks when a program stops: last in first out, each with a time limit, each whatever the others do.

    A whole program:

        async def main() -> None:
            async with ShutdownManager() as shutdown:
                shutdown.register_signals()
                bot = Bot(token)
                shutdown.register_callback(bot.session.close, name="bot session")
                scheduler.start()
                shutdown.register_callback(scheduler.shutdown)
                await shutdown.wait()  # SIGTERM, SIGINT, or shutdown.request()

    Leaving the block shuts down: first the scheduler, then the session. In a program of another shape, call
    `await shutdown.shutdown()` yourself; it may be called any number of times.

    An async callback runs in the event loop. One that is not runs in a thread of its own, since nothing else could
    bound it: what has to touch the loop should be async. A callback that raises is logged with its name, one that hangs
    is cancelled and left behind, and the rest run. A callback may register more callbacks: they come next.

    A second stop signal hurries: `on_second_signal` is called, and what is left shares `hurry` seconds evenly.
    A process that still runs after as many seconds again (something blocks the loop) ends hard, and so it does at a
    third signal, with status 128 + the signal's number.
    """

    def __init__(
        self,
        *,
        timeout: float = 5.0,
        hurry: float = 1.0,
        on_second_signal: Callable[[], Awaitable[object] | object] | None = None,
        hurries: bool = True,
    ) -> None:
        """`timeout`: the limit of a callback that has none of its own, in seconds. `on_second_signal` is called in the
        event loop, and awaited if it is async. `hurries`: False if another process counts the signals, and ends this
        one when it has to: a second one changes nothing here."""
        self._timeout = timeout
        self._hurry = hurry
        self._on_second_signal = on_second_signal
        self._hurries = hurries
        self._registered: list[_Registered] = []
        self._asked = asyncio.Event()
        self._signal: signal.Signals | None = None
        self._heard = 0
        self._signals = StopSignals(self._on_signal)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends_by = 0.0
        self._hurried = asyncio.Event()
        self._hook: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._current: asyncio.Task[Any] | None = None

    def register_callback(
        self, callback: AnyCallback, *, name: str | None = None, timeout: float | None = None
    ) -> AnyCallback:
        """Have `callback()` called at shutdown, before all that were registered earlier. `timeout` in seconds.

        Answers the callback, so that it serves as a decorator:

            @shutdown.register_callback
            async def say_goodbye() -> None: ...

        Raises RuntimeError when the shutdown is over: it would never be called.
        """
        if not callable(callback):
            if inspect.iscoroutine(callback):
                callback.close()
            raise TypeError("register_callback needs something to call: `session.close`, not `session.close()`")
        if self._running is not None and self._running.done():
            raise RuntimeError("the shutdown is over: nothing can be registered any more")
        limit = self._timeout if timeout is None else timeout
        self._registered.append(_Registered(callback, name or _name(callback), limit))
        return callback

    def register_signals(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Let SIGTERM, SIGINT and, on Windows, SIGBREAK end `wait()`; SIGHUP too (the terminal is closed), where it
        would end the process otherwise. The end of the shutdown undoes it.

        `loop`: the loop that waits, by default the running one. Raises RuntimeError outside of the main thread.
        """
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._signals.install(self._loop)

    def request(self) -> None:
        """Do what a first signal does: end `wait()`. To be called in the event loop."""
        self._asked.set()

    @property
    def requested(self) -> bool:
        """Has anybody asked to stop?"""
        return self._asked.is_set()

    async def wait(self) -> signal.Signals | None:
        """Wait until somebody asks to stop. Answers the signal, or None after `request()`."""
        await self._asked.wait()
        return self._signal

    async def shutdown(self) -> None:
        """Run the callbacks. Idempotent: who comes later waits for the same end. Raises nothing that a callback raised.

        Takes at most the sum of their time limits. If the caller is cancelled, it is finished all the same, and the
        cancellation raised after it.
        """
        self._asked.set()
        if self._running is None:
            self._running = asyncio.ensure_future(self._run_all())
        if asyncio.current_task() is self._current:
            return  # a callback that asks for what it is part of
        await finish(_ended(self._running))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def _run_all(self) -> None:
        while self._registered:
            await self._run(self._registered.pop())
        if self._hook is not None:
            await asyncio.wait([self._hook], timeout=max(0.0, self._ends_by - clock.now()))
        self._signals.restore()

    async def _run(self, registered: _Registered) -> None:
        began = clock.now()
        task = asyncio.ensure_future(_call(registered.callback))
        hurried = asyncio.ensure_future(self._hurried.wait())
        self._current = task
        if not self._hurried.is_set():
            await asyncio.wait([task, hurried], timeout=registered.timeout, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and self._hurried.is_set():
            left = max(0.0, self._ends_by - clock.now()) / (1 + len(self._registered))
            await asyncio.wait([task], timeout=min(left, registered.timeout))
        hurried.cancel()
        timely = task.done()
        if not timely:
            task.cancel()
            await asyncio.wait([task], timeout=0 if self._hurried.is_set() else _GRACE)
        self._current = None
        self._report(registered, task, timely, clock.now() - began)

    def _report(self, registered: _Registered, task: asyncio.Task[object], timely: bool, took: float) -> None:
        if not timely:
            left = "" if task.done() else " and does not let itself be cancelled, so it is left behind"
            logger.error("shutdown: %s is not done after %.1f s%s", registered.name, took, left)
            _left_behind.add(task)
            task.add_done_callback(_retrieve)
        elif task.cancelled():
            logger.error("shutdown: %s was cancelled", registered.name)
        elif error := task.exception():
            logger.error("shutdown: %s failed: %r", registered.name, error, exc_info=error)
        else:
            logger.debug("shutdown: %s is done after %.2f s", registered.name, took)

    def _on_signal(self, number: int) -> None:
        # In a signal handler: see StopSignals.
        if self._heard and not self._hurries:
            return
        self._heard += 1
        passed_on = False
        if self._heard == 1:
            self._signal = signal.Signals(number)
            passed_on = call_in(self._loop, self._asked.set)
        elif self._heard == 2:
            _thread.start_new_thread(_end_after, (2 * self._hurry, number))  # without the locks of `threading`
            passed_on = call_in(self._loop, self._hasten)
        if not passed_on:
            os._exit(128 + number)

    def _hasten(self) -> None:
        logger.warning("shutdown: a second signal, so all that is left gets %.1f s", self._hurry)
        self._ends_by = clock.now() + self._hurry
        self._hurried.set()
        if self._on_second_signal is not None:
            self._hook = asyncio.ensure_future(self._run_hook(self._on_second_signal))

    async def _run_hook(self, hook: Callback) -> None:
        try:
            answer = hook()
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            logger.exception("shutdown: on_second_signal failed")


def _name(callback: Callback) -> str:
    while isinstance(callback, functools.partial):
        callback = callback.func  # and not its repr: the arguments may be secret
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


async def _call(callback: Callback) -> object:
    is_async = any(map(inspect.iscoroutinefunction, (callback, getattr(callback, "__call__", None))))  # noqa: B004
    try:
        answer = callback() if is_async else await _in_thread(callback)
        return await answer if inspect.isawaitable(answer) else answer
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"it raised {error!r}, which would have ended the shutdown") from error


async def _in_thread(callback: Callback) -> object:
    # Not asyncio.to_thread: its threads are waited for at the end of the loop and of the interpreter, for ever.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[object] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: object, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def run() -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            result = context.run(callback)
        except BaseException as error:  # noqa: BLE001  it is reported in the loop, with the callback's name
            failure = error
        call_in(loop, lambda: settle(result, failure))

    threading.Thread(target=run, name="cluster-lock-shutdown", daemon=True).start()
    return await answer


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    task.result()


def _retrieve(task: asyncio.Task[object]) -> None:
    """Take note of how a callback that was left behind has ended: asyncio complains about what nobody looked at."""
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()


def _end_after(seconds: float, number: int) -> None:
    time.sleep(seconds)
    os._exit(128 + number)
