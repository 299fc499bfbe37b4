"""What befalls a bot's own process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import ClassVar

from .faults import LEADER, STANDBY, OnBot


class _Ended(OnBot):
    number: signal.Signals

    async def strike(self) -> None:
        self.bot.child.send_signal(self.number)

    async def end(self) -> None:
        await asyncio.to_thread(self.bot.child.wait, 30)
        self.ground.relaunch(self.bot)


class Killed(_Ended):
    name = "bot killed"
    number = signal.SIGKILL


class AskedToStop(_Ended):
    """It hands over, or releases."""

    name = "bot asked to stop"
    number = signal.SIGTERM


class HeirKilled(AskedToStop):
    """The leader is asked to stop, and who it invites dies meanwhile: just before, or some time after, its answer."""

    name = "heir killed during a hand-over"
    of = ("at once", "soon", "later")
    after: ClassVar[Mapping[str, float]] = {"at once": 0.005, "soon": 0.02, "later": 0.08}

    async def strike(self) -> None:
        self.heir = self.ground.bot(STANDBY)
        await super().strike()
        await asyncio.sleep(self.after[self.on])
        self.heir.child.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        await super().end()
        await asyncio.to_thread(self.heir.child.wait, 30)
        self.ground.relaunch(self.heir)


class _Stopped(OnBot):
    stops = True

    async def strike(self) -> None:
        self.bot.child.send_signal(signal.SIGSTOP)

    async def end(self) -> None:
        self.bot.child.send_signal(signal.SIGCONT)


class StoppedShortly(_Stopped):
    """SIGSTOP and SIGCONT, within the lease."""

    name = "bot stopped shortly"
    lasts = (0.1, 0.6)


class StoppedLong(_Stopped):
    """SIGSTOP and SIGCONT, for longer than the lease."""

    name = "bot stopped long"
    lasts = (1.1, 1.6)


class _Busy(OnBot):
    """A handler does it, once."""

    of = (LEADER,)
    word: str

    async def strike(self) -> None:
        seconds = self.longer * self.ground.scene.timing.ttl
        self.detail += f" for {seconds:g} s"
        await self.ground.scene.telegram.push(self.ground.scene.bot_id, chat_id=99, text=f"{self.word} {seconds:g}")

    longer = 0.4


class LoopBlocked(_Busy):
    name = "loop blocked"
    word = "block"


class LoopBlockedLong(LoopBlocked):
    name = "loop blocked long"
    longer = 1.3


class InterpreterHeld(_Busy):
    """A library in C keeps the GIL."""

    name = "GIL held"
    word = "hold"


class InterpreterHeldLong(InterpreterHeld):
    name = "GIL held long"
    longer = 1.3


ALL = (
    Killed,
    AskedToStop,
    HeirKilled,
    StoppedShortly,
    StoppedLong,
    LoopBlocked,
    LoopBlockedLong,
    InterpreterHeld,
    InterpreterHeldLong,
)
