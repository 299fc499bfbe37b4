"""An event loop whose time jumps to the next timer when nothing else is to do: an hour of leases in a millisecond.

`run(main())` is `asyncio.run` on such a loop, with `cluster_lock.clock` on the same time. What takes real time has no
place there, sockets and threads above all, and is refused with a sentence. What would wait for ever ends with one too.
"""

from __future__ import annotations

import asyncio
import functools
import math
from asyncio import base_events
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from cluster_lock import clock

Result = TypeVar("Result")

START = 1000.0
"""The first moment, in seconds. Small, so that rounding errors of later ones stay far below the loop's resolution."""
IDLE_TURNS = 100_000
"""Turns of the loop without time going on, after which something is taken to be spinning."""


class VirtualTimeError(RuntimeError):
    """The code under test did what virtual time has no answer to; the text says what, and what to do."""


def run(main: Coroutine[Any, Any, Result], *, at_most: float = 7 * 86400.0) -> Result:
    """The result of `main`, run in virtual time. Raises VirtualTimeError after `at_most` virtual seconds, when nothing
    is left that could go on, or when it goes on without end at one moment."""
    loop = VirtualTimeLoop(START + at_most)
    with clock.replaced(lambda: loop.time() + loop.suspended), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def block(seconds: float) -> None:
    """Let time go on while nothing runs, as when a handler blocks the loop, or the process is stopped."""
    _running().advance(seconds)


def suspend(seconds: float) -> None:
    """Let `clock.now()` go on and the loop's timers not, as when the machine sleeps."""
    _running().suspended += seconds


def _running() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise VirtualTimeError("there is no virtual time here: use cluster_lock.testing.virtual_time.run")
    return loop


class VirtualTimeLoop(base_events.BaseEventLoop):
    """Made by `run`. Only the base of asyncio's loops: it has no file descriptor that could be waited for."""

    def __init__(self, end: float = math.inf) -> None:
        super().__init__()
        self.suspended = 0.0
        self._now = START
        self._end = end
        self._idle_turns = 0
        self._selector = self  # what the base asks to wait

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._idle_turns = 0
        if self._now > self._end:
            self._end = math.inf  # said once: what is cancelled now may need some time more
            raise VirtualTimeError(f"not done at the virtual moment {self._now:g} s; still waiting:\n{self._waiting()}")

    def select(self, timeout: float | None) -> list[Any]:
        """The base loop's wait, which it asks for with what it knows: None when there is nothing to wait for."""
        if timeout is None:
            raise VirtualTimeError(f"nothing is scheduled any more, and these wait for ever:\n{self._waiting()}")
        if timeout > 0:
            self.advance(timeout)
        self._idle_turns += 1
        if self._idle_turns > IDLE_TURNS:
            self._idle_turns = 0
            raise VirtualTimeError(f"the time stands still at {self._now:g} s, and these go round:\n{self._waiting()}")
        return []

    def set_default_executor(self, executor: object) -> None:
        """Kept by nobody, as nothing is run in it: a loop that has one waits at its end for the executor's threads, up
        to 300 s, which here pass in no time at all."""

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # wakes a loop that waits in a system call, which this one never does

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "\n".join(f"  {task.get_name()}: {_place(task)}" for task in tasks) or "  (no task)"


def _no_sockets(*_: Any, **__: Any) -> NoReturn:
    raise VirtualTimeError(
        "virtual time has no sockets, pipes and processes, whose time is real:"
        " use the memory driver here, or run this test with asyncio.run"
    )


def _no_threads(loop: VirtualTimeLoop, executor: object, func: Any, *_: Any) -> NoReturn:
    while isinstance(func, functools.partial):  # to_thread hands over partial(Context.run, func, ...)
        func = func.args[0] if func.args else func.func
    raise VirtualTimeError(
        "virtual time has no threads (run_in_executor, asyncio.to_thread), whose time is real:"
        f" call {getattr(func, '__qualname__', func)} directly, or run this test with asyncio.run"
    )


_NEEDS_SOCKETS = (
    *("add_reader", "add_writer", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe"),
    *("create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection"),
    *("create_unix_server", "getaddrinfo", "getnameinfo", "sendfile", "sock_accept", "sock_connect", "sock_recv"),
    *("sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile", "sock_sendto"),
    *("start_tls", "subprocess_exec", "subprocess_shell"),
)
for _name in _NEEDS_SOCKETS:
    setattr(VirtualTimeLoop, _name, _no_sockets)
setattr(VirtualTimeLoop, "run_in_executor", _no_threads)  # noqa: B010 (its signature is not the base's, on purpose)


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost line of its coroutines."""
    waits: Any = task.get_coro()
    line = "not begun"
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            line = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return line
