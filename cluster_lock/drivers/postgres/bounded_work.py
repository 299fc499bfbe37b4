"""A limit around work on a connection that holds whatever the server and the client library do.

psycopg answers a cancellation by asking the server to cancel, for 5 seconds, and then waits for the answer for 5 more
(measured on a server that was stopped: 10.0 s). A second cancellation ends that at once, and it lets go of the socket
first: to close the socket while the event loop still watches it would take the next socket of that number from the
watch of its owner. So work that is given up is cancelled until it has ended, a few turns of the loop, and only then is
its connection closed. Nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cluster_lock import clock

T = TypeVar("T")

_TURNS = 50


async def bounded(work: Coroutine[Any, Any, T], until: float, close: Callable[[T | None], None]) -> T:
    """What `work` gives. At the moment `until`, or when we are cancelled, it is given up; `close` is called when it has
    ended, with what it gave all the same. Raises TimeoutError."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=max(0.0, until - clock.now()))
        if not task.done():
            raise TimeoutError
    except BaseException:
        give_up(task, close)
        raise
    return task.result()


def give_up(task: asyncio.Future[T], close: Callable[[T | None], None]) -> None:
    """End the task in the next turns of the loop, then close."""
    loop = asyncio.get_running_loop()

    def turn(left: int) -> None:
        if task.done() or not left:
            close(task.result() if task.done() and not task.cancelled() and not task.exception() else None)
            return
        task.cancel()
        loop.call_soon(turn, left - 1)

    turn(_TURNS)
