"""Runs a coroutine in a test, never for longer than the test can tell."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 150.0
"""Seconds that a wait may take which only guards against a hang: aiogram takes seconds of a processor to import, and on
a busy machine many programs share it. What must be quick is measured and compared, not cut off."""
LONGEST = 500.0
"""Seconds for a whole test. The limit of pytest-timeout is above it: it is this one that tells what was awaited."""


def run(main: Coroutine[Any, Any, T], *, timeout: float = LONGEST) -> T:
    """`asyncio.run` that ends with TimeoutError after `timeout` seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout):
            return await main

    return asyncio.run(bounded())


@contextmanager
def in_a_thread(entered: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """What `entered` gives, living in a loop and a thread of its own while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        given = asyncio.run_coroutine_threadsafe(_enter(entered), loop).result()
        try:
            yield given
        finally:
            asyncio.run_coroutine_threadsafe(_leave(entered), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _enter(entered: AbstractAsyncContextManager[T]) -> T:
    return await entered.__aenter__()


async def _leave(entered: AbstractAsyncContextManager[Any]) -> None:
    await entered.__aexit__(None, None, None)


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, timeout: float = PATIENCE) -> None:
    """Return as soon as the condition is true; AssertionError with its source name after `timeout` seconds.

    For what tells nobody when it changes (a file, another process); an event is better where there is one.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        assert loop.time() < end, f"{getattr(condition, '__qualname__', condition)} was not true within {timeout:g} s"
        await asyncio.sleep(0.01)


async def quickest(trial: Callable[[], Awaitable[float]], enough: float) -> float:
    """The shortest of up to three trials, of one if that took less than `enough`: what a busy machine adds comes and
    goes, what the code adds stays."""
    took: list[float] = []
    for _ in range(3):
        took.append(await trial())
        if took[-1] < enough:
            break
    return min(took)
