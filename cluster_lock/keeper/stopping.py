"""Signals of a keeper: the first asks to stop in good order, a second ends at once, others are for the command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

PASSED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


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
        """From now on; `pass_on(number)` gets what is not for us."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask, number)
        for number in PASSED_ON:
            loop.add_signal_handler(number, pass_on, number)

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
