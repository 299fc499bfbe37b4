"""Signals of a keeper: the first asks to stop in good order, a second ends at once, others are for the command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


_early: list[int] = []


def remember() -> None:
    """Until somebody listens, signals to stop are kept. Whoever started us may have held them back, too: the kernel
    drops those that process 1 of a container does not handle."""
    for number in STOPS:
        signal.signal(number, lambda number, _: _early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def hold_back() -> None:
    """As process 1, on the way to becoming a keeper: signals to stop wait for `remember`."""
    if os.getpid() == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


class Stopping:
    """`asked`: the first signal to stop, `hurried`: the second one; their numbers."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.hurried: int | None = None
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def reason(self) -> str:
        return signal.Signals(self.asked).name if self.asked is not None else "stopping"

    def listen(self, pass_on: Callable[[int], None]) -> None:
        """From now on; `pass_on(number)` gets what is not for us. What whoever started us had us ignore (`nohup`) stays
        ignored, here and in the command."""
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self.ask, number)
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, pass_on, number)
        while _early:
            self.ask(_early.pop(0))

    def ask(self, number: int) -> None:
        """A signal to stop has come."""
        if self.asked is None:
            self.asked = number
            self._asked.set()
        else:
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
