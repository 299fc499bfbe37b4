"""The signals that ask a process to stop, brought into an event loop on every platform."""

from __future__ import annotations

import asyncio
import atexit
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

from cluster_lock import clock

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
"""SIGBREAK is Windows' own: Ctrl-Break, and what a service manager sends there."""
ENDS_WITHIN = 5.0
"""Seconds that a program may need, when all is done, to end: its loop, its threads, its objects by the million."""
_HANG_UP = getattr(signal, "SIGHUP", None)


class StopSignals:
    """Calls `heard(number)` in the main thread for each stop signal, from `install` to `restore`. Several may be
    installed at a time, and each hears.

    Not `loop.add_signal_handler`: Windows has none, and where it exists nothing is heard while a callback blocks the
    loop, which is when people press Ctrl-C a second time. So `heard` runs between two bytecodes of whatever the main
    thread is doing: no lock, no log, only `call_soon_threadsafe` and its like.
    """

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._before: dict[signal.Signals, Any] = {}
        self._over = False
        self._wakeup: _Wakeup | None = None

    def install(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Idempotent. `loop`: what the main thread waits in, if it does. Raises RuntimeError in another thread than the
        main one, where Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals can only be registered in the main thread: call register_signals() there")
        # The terminal is closed. Where it is ignored (nohup), or has another meaning, it stays as it is.
        hang_up = [_HANG_UP] if _HANG_UP is not None and signal.getsignal(_HANG_UP) == signal.SIG_DFL else []
        if self._over:
            raise RuntimeError("these signals were restored: what listens anew is another StopSignals")
        for number in (*STOP_SIGNALS, *hang_up):
            if number not in self._before:
                self._before[number] = signal.signal(number, self._handle)
        if loop is not None and self._wakeup is None and loop is _running_loop():
            self._wakeup = _Wakeup.of(loop)

    def restore(self) -> None:
        """Put back what was there before, unless somebody else has replaced ours meanwhile. Idempotent."""
        if self._over or threading.current_thread() is not threading.main_thread():
            return
        self._over = True
        for number in self._before:
            if signal.getsignal(number) == self._handle:
                before = self._heard_before(number)
                signal.signal(number, signal.SIG_DFL if before is None else before)
        if self._wakeup is not None:
            self._wakeup.leave()
            self._wakeup = None

    def _heard_before(self, number: int) -> Any:
        """What was there before us, but for those of our kind that are over: they were installed before us, and
        restored before us, too."""
        before = self._before.get(signal.Signals(number))
        while isinstance(one := getattr(before, "__self__", None), StopSignals) and one._over:
            before = one._before.get(signal.Signals(number))
        return before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = self._heard_before(number)
        if isinstance(getattr(before, "__self__", None), StopSignals):
            before(number, frame)
        if not self._over:
            self._heard(number)


def ignore_more(seconds: float) -> None:
    """A signal to stop has been heeded, and the program is about to end by itself: for so many seconds another one,
    where it would end the process, changes nothing. Later it does again."""
    if threading.current_thread() is not threading.main_thread():
        return
    until = clock.now() + seconds

    def late(number: int, frame: FrameType | None) -> None:
        if clock.now() >= until:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def at_end() -> None:
        # The interpreter drops handlers that are functions long before it has ended.
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is late:
                signal.signal(number, signal.SIG_IGN)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, late)
    atexit.register(at_end)


class _Wakeup:
    """Has a signal wake the loop. Python calls a handler between two bytecodes, and a signal that comes after the last
    one before the loop begins to wait would be heard when the loop has something else to do, if ever.

    A process has one descriptor for this, so all that listen in a loop share it, and the last one takes it down."""

    _now: ClassVar[_Wakeup | None] = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._reads, self._writes = socket.socketpair()
        self._number = self._writes.fileno()
        for end in (self._reads, self._writes):
            end.setblocking(False)
        if (before := signal.set_wakeup_fd(self._number, warn_on_full_buffer=False)) >= 0:
            signal.set_wakeup_fd(before)  # the loop has one of its own, as on Windows, and in uvloop
        else:
            loop.add_reader(self._reads, self._drain)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Wakeup:
        """What wakes this loop, with one user more. A loop before this one, in which somebody still listens, does not
        run any more: a thread runs one."""
        if cls._now is None or cls._now._loop is not loop:
            if cls._now is not None:
                cls._now._close()
            cls._now = cls(loop)
        cls._now._users += 1
        return cls._now

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0 and _Wakeup._now is self:
            _Wakeup._now = None
            self._close()

    def _close(self) -> None:
        if (now := signal.set_wakeup_fd(-1)) != self._number:
            signal.set_wakeup_fd(now)  # somebody else's
        if not self._loop.is_closed():
            with suppress(NotImplementedError):
                self._loop.remove_reader(self._reads)
        self._reads.close()
        self._writes.close()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._reads.recv(4096)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_in(loop: asyncio.AbstractEventLoop | None, callback: Callable[[], object]) -> bool:
    """Have `loop` call it, from a signal handler or another thread. False if the loop is closed."""
    if loop is None:
        return False
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True
