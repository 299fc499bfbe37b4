"""What befalls a bot's own process, and the machine that it is on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from support import wall_clock
from support.stores import open_session

from cluster_lock.admin.step_down import ask_to_step_down
from cluster_lock.errors import ClusterLockError
from cluster_lock.session import Session
from cluster_lock.testing.telegram import Fault as Trouble

from .faults import LEADER, RELEASED, STANDBY, Fault, OnBot
from .ground import Ground
from .released import OLDER, ReleasedBot
from .waiting import came_true

ASKED_WITHIN = 10.0
BACK_WITHIN = 30.0
SAID_AFTER = 0.3


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
    asks_to_stop = True


class RollingRestart(Fault):
    """Each is asked to stop and started again, as at an upgrade, when the one before it is back."""

    name = "rolling restart"
    of = ("all",)
    lasts = (0.1, 0.3)
    asks_to_stop = True

    async def begin(self) -> None:
        await self.roll()

    async def roll(self, *, released: bool = False) -> None:
        for bot in list(self.ground.bots):
            bot.child.send_signal(signal.SIGTERM)
            await asyncio.to_thread(bot.child.wait, 30)
            self.ground.relaunch(bot, released=released)
            if not await came_true(self._all_are_back, BACK_WITHIN):
                self.detail = f"{bot.client} was not followed by another one within {BACK_WITHIN:g} s"
                return

    async def _all_are_back(self) -> bool:
        return all(bot.leads or bot.stands_by for bot in self.ground.bots)


class RollingUpgrade(RollingRestart):
    """From the version that was released before; so each is first restarted as one of that version, which is the way
    back from an upgrade.

    What that version does wrong is not this one's: so nothing else befalls them meanwhile. And handlers obey, since
    0.1.0 handed its lock over without a word of what it had finished when one outlived `drain` and `cancel_grace`."""

    name = "rolling upgrade"
    needs = None if OLDER else RELEASED
    bare = True
    alone = True
    obedient = True

    async def begin(self) -> None:
        await self.roll(released=True)
        await self.roll()

    async def end(self) -> None:
        """Whatever came of it, the next round is about this version."""
        for bot in list(self.ground.bots):
            if isinstance(bot, ReleasedBot):
                bot.child.kill()
                await asyncio.to_thread(bot.child.wait, 30)
                self.ground.relaunch(bot)


class SteppedDown(Fault):
    """A person asks the leader to hand over, with `step-down`."""

    name = "asked to step down"
    of: ClassVar[Sequence[str]] = (LEADER,)

    async def begin(self) -> None:
        ground = self.ground
        self.detail = await asked(ground, open_session(ground.store.backend(), ground.scene.prefix, "operator"))


async def asked(ground: Ground, opening: AbstractAsyncContextManager[Session], to: str | None = None) -> str:
    """What came of a request to step down that this session makes."""
    try:
        async with asyncio.timeout(ASKED_WITHIN), opening as session:
            outcome = await ask_to_step_down(session, ground.lock, to=to, by="the laboratory", timeout=ASKED_WITHIN / 2)
    except (ClusterLockError, TimeoutError) as error:  # another fault was there
        return f"not done: {error}"
    return "nobody led" if outcome is None else outcome.declined or ""


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


class _WallClock(OnBot):
    """All of its other clocks go on as they did, and at the end it jumps back to the true time."""

    seconds: int

    @classmethod
    def can_be_done(cls) -> bool:
        return wall_clock.library() is not None

    async def strike(self) -> None:
        self.ground.scene.put_wall_clock(self.bot.name, self.seconds)

    async def end(self) -> None:
        self.ground.scene.put_wall_clock(self.bot.name, 0)


class WallClockForward(_WallClock):
    """By an hour."""

    name = "wall clock jumps forward"
    seconds = 3600


class WallClockBack(_WallClock):
    """By an hour: to before the process was started."""

    name = "wall clock jumps back"
    seconds = -3600


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


class LogUnread(_Busy):
    """Stderr is a pipe that is full: a write to it waits."""

    name = "stderr full"
    word = "gag"
    longer = 1.3
    harmless = True

    async def strike(self) -> None:
        await super().strike()
        await asyncio.sleep(SAID_AFTER)
        await self.ground.scene.telegram.inject(Trouble(status=502, times=2))  # something to be logged


class MachineBusy(Fault):
    """Every processor has others at work, on all hosts: they are one machine."""

    name = "machine busy"
    of = ("machine",)

    async def begin(self) -> None:
        spin = (sys.executable, "-c", "while True: pass")
        self._others = [await asyncio.create_subprocess_exec(*spin) for _ in range(2 * (os.cpu_count() or 1))]

    async def end(self) -> None:
        for other in self._others:
            other.kill()
            await other.wait()


ALL = (
    Killed,
    AskedToStop,
    RollingRestart,
    RollingUpgrade,
    SteppedDown,
    HeirKilled,
    StoppedShortly,
    StoppedLong,
    WallClockForward,
    WallClockBack,
    LoopBlocked,
    LoopBlockedLong,
    InterpreterHeld,
    InterpreterHeldLong,
    LogUnread,
    MachineBusy,
)
