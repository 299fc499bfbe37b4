"""The signals that ask a process to stop, brought into an event loop on every platform."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
"""SIGBREAK is Windows' own: Ctrl-Break, and what a service manager sends there."""


class StopSignals:
    """Calls `heard(number)` in the main thread for each stop signal, from `install` to `restore`.

    Not `loop.add_signal_handler`: Windows has none, and where it exists nothing is heard while a callback blocks the
    loop, which is when people press Ctrl-C a second time. So `heard` runs between two bytecodes of whatever the main
    thread is doing: no lock, no log, only `call_soon_threadsafe` and its like.
    """

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Idempotent. Raises RuntimeError in another thread than the main one, where Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals can only be registered in the main thread: call register_signals() there")
        for number in STOP_SIGNALS:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put back what was there before, unless somebody has put his own in place of ours. Idempotent."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._heard(number)


def call_in(loop: asyncio.AbstractEventLoop | None, callback: Callable[[], object]) -> bool:
    """Have `loop` call it, from a signal handler or another thread. False if the loop is closed."""
    if loop is None:
        return False
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True
