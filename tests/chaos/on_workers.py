"""What befalls a worker under its keeper."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import ClassVar

from cluster_lock import clock

from .faults import LEADER, OnBot
from .kept import send
from .on_bots import LoopBlocked, SteppedDown
from .waiting import came_true

HELPER_WITHIN = 2.0


class WorkerKilled(OnBot):
    """The keeper sees it, releases the lock and starts another one."""

    name = "worker killed"
    kept = True

    async def strike(self) -> None:
        send(self.struck, signal.SIGKILL)


class WorkerStopped(OnBot):
    """SIGSTOP, and SIGCONT if the keeper has left anything to go on."""

    name = "worker stopped"
    kept = True
    stops = True
    lasts = (0.1, 1.2)

    async def strike(self) -> None:
        send(self.struck, signal.SIGSTOP)

    async def end(self) -> None:
        send(self.struck, signal.SIGCONT)


class WorkerAskedToStop(OnBot):
    """By a person who takes it for the bot: its keeper starts another one."""

    name = "worker asked to stop"
    asks_to_stop = True
    kept = True

    async def strike(self) -> None:
        send(self.struck, signal.SIGTERM)


class HelperLeft(OnBot):
    """A handler has started a program that works for it, and the worker dies: what is left of it must end before
    somebody else leads."""

    name = "worker killed beside its helper"
    of = (LEADER,)
    kept = True
    lasts = (0.6, 1.6)

    async def strike(self) -> None:
        scene, since = self.ground.scene, clock.now()
        seconds = 2 * scene.timing.ttl
        await scene.telegram.push(scene.bot_id, chat_id=99, text=f"help {seconds:g}")

        async def is_there() -> bool:
            return bool(self.bot.events("helper", since))

        if await came_true(is_there, HELPER_WITHIN, every=0.05):
            send(self.struck, signal.SIGKILL)
        else:
            self.detail += ", not done: nobody handled it"


class HeirsWorkersKilled(SteppedDown):
    """The leader is asked to hand over, and the workers of all others die when one of them has answered. Their keepers
    live, and wait for the lock no more."""

    name = "workers of the heirs killed during a hand-over"
    of = ("at once", "soon", "later")
    after: ClassVar[Mapping[str, float]] = {"at once": 0.03, "soon": 0.1, "later": 0.3}
    kept = True

    async def begin(self) -> None:
        leader = self.ground.bot(LEADER)
        heirs = [bot.client for bot in self.ground.bots if bot is not leader]
        asking = asyncio.create_task(super().begin())
        await asyncio.sleep(self.after[self.on])
        for heir in heirs:
            send(heir, signal.SIGKILL)
        await asking


class LockTakenWhileStopped(WorkerStopped):
    """A person deletes the key while the worker stands still. It hears nothing of that, and would go on with the lease
    that its keeper renews."""

    name = "key deleted by hand while the worker is stopped"
    of = (LEADER,)
    lasts = (0.2, 0.5)
    by_hand = True

    async def strike(self) -> None:
        await super().strike()
        operator = await self.ground.operator()
        await asyncio.to_thread(operator.delete_key, self.ground.lock)


class LoopBlockedWithinLimit(LoopBlocked):
    """For longer than a lease lasts, and not so long that the keeper ends the worker: renewals come all the time."""

    name = "loop blocked below a keeper that renews"
    kept = True
    longer = 0.85
    harmless = True


class LoopHangs(LoopBlocked):
    """For good, as far as anybody can tell."""

    name = "loop hangs"
    kept = True
    longer = 6.0


ALL = (
    WorkerKilled,
    WorkerStopped,
    WorkerAskedToStop,
    HelperLeft,
    HeirsWorkersKilled,
    LockTakenWhileStopped,
    LoopBlockedWithinLimit,
    LoopHangs,
)
