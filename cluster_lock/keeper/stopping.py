"""Signals of a keeper: the first asks to stop in good order, a second ends at once, others are for the command.

A stop signal often comes several times: to every process of a service, from a terminal, from a script that passes it
on. What comes within a second is one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from cluster_lock import clock
from cluster_lock.values import EndCode, EndReason

STOPS = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
ENDS = frozenset({signal.SIGHUP, signal.SIGQUIT})
"""Of these, what asks us to stop if nobody is there for it: the terminal was closed, or somebody wants an end."""
COPIES = 1.0
REACHES_ALL = 0.05
"""Seconds that a signal to every process needs to reach them all: the init knows then that the command has it, too."""


_early: list[int] = []


def remember() -> None:
    """Until somebody listens, signals to stop are kept. Our parent may have held them back, too: the kernel
    drops those that process 1 of a container does not handle."""
    for number in STOPS:
        signal.signal(number, lambda number, _: _early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def hold_back() -> None:
    """As process 1, on the way to becoming a keeper: signals to stop wait for `remember`."""
    if os.getpid() == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def listen_no_more() -> None:
    """All is done: a copy of a signal that still comes does not change the exit code."""
    for number in STOPS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


class KeeperStopping:
    """`asked`: the first signal to stop, `hurried`: the next one that is no copy of it; their numbers."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.hurried: int | None = None
        self._asked_at = 0.0
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def reason(self) -> EndReason:
        text = signal.Signals(self.asked).name if self.asked is not None else "stopping"
        return EndReason(text, EndCode.STOPPED)

    def listen(self, pass_on: Callable[[int], bool]) -> None:
        """From now on; `pass_on(number)` gets what is not for us, and says whether there was somebody to take it. What
        our parent had us ignore (`nohup`) stays ignored, here and in the command."""
        loop = asyncio.get_running_loop()

        def heard(number: int) -> None:
            if not pass_on(number) and number in ENDS:
                self.ask(number)

        for number in STOPS:
            loop.add_signal_handler(number, self.ask, number)
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, loop.call_later, REACHES_ALL, heard, number)
        # A script whose trap sends what it hears to itself makes more of them than the loop can read: a full pipe wakes
        # it as well.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        while _early:
            self.ask(_early.pop(0))

    def ask(self, number: int) -> None:
        """A signal to stop has come."""
        if self.asked is None:
            self.asked, self._asked_at = number, clock.now()
            self._asked.set()
        elif clock.now() - self._asked_at >= COPIES:
            self.hurried = number
            self._hurried.set()

    async def wait(self) -> None:
        await self._asked.wait()

    async def wait_hurried(self) -> None:
        await self._hurried.wait()

    async def within(self, seconds: float) -> bool:
        """Is it asked for within so many seconds? Waits that long if not."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True
