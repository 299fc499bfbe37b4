"""Work in threads, and the term that it belongs to.

A thread cannot be cancelled: asyncio reports the end of `await asyncio.to_thread(work)` while `work` goes on, and the
lock would be given away under it (docs/design.md#end-before-release). So all work that goes into the loop's default
executor is noted for the term that it came from: from the body, a task of the term, a handler, or something that one of
them started.

Work in an executor, a thread or a process that the user made cannot be seen here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_current: ContextVar[Threads | None] = ContextVar("cluster_lock_threads", default=None)
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class Threads:
    """The work of one term that runs in threads."""

    def __init__(self) -> None:
        self._running: set[Future[Any]] = set()

    def context(self) -> Context:
        """A copy of the current context; everything that begins in it, at any depth, belongs to this term."""
        context = copy_context()
        context.run(_current.set, self)
        return context

    @contextmanager
    def current(self) -> Iterator[None]:
        """Everything that the block begins in this task, at any depth, belongs to this term."""
        before = _current.get()
        _current.set(self)
        try:
            yield
        finally:
            _current.set(before)

    @property
    def running(self) -> frozenset[Future[Any]]:
        """The work that has not ended."""
        return frozenset(self._running)

    def note(self, work: Future[Any]) -> None:
        self._running.add(work)
        work.add_done_callback(self._running.discard)

    async def ended(self, timeout: float | None = None) -> bool:
        """Wait until all of it has ended, also what is added meanwhile; False if that takes longer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while running := self.running:
                    one = asyncio.Event()
                    for work in running:
                        work.add_done_callback(lambda _, one=one: loop.call_soon_threadsafe(one.set))  # type: ignore[misc]
                    await one.wait()
        except TimeoutError:
            return False
        return True


class TermExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor that notes for each term the work that the term has put in."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        work = super().submit(fn, *args, **kwargs)
        threads = _current.get()
        if threads is not None and not _is_of_asyncio(fn):
            threads.note(work)
        return work


def watch_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Have the threads of `asyncio.to_thread`, and of `run_in_executor` without an executor, belong to terms.

    By `loop.set_default_executor`, once for a loop. One that is set later takes its place.
    """
    if loop not in _loops:
        _loops.add(loop)
        loop.set_default_executor(TermExecutor(thread_name_prefix="asyncio"))


def _is_of_asyncio(fn: Callable[..., Any]) -> bool:
    """Is this a look-up of a host name, which asyncio itself puts into a thread? It changes nothing and hangs for long
    without a network. Nobody should wait for it, least of all when a lease was lost because the network is gone."""
    if fn is socket.getaddrinfo or fn is socket.getnameinfo:
        return True
    return (getattr(fn, "__module__", None) or "").partition(".")[0] == "asyncio"
