"""What Telegram does to those who ask it."""

from __future__ import annotations

from typing import Literal, cast

from cluster_lock.testing import telegram

from .faults import Fault

QUIET_WITHIN = 8.0
CONFLICT = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"


class _Trouble(Fault):
    of = ("Telegram",)
    lasts = (0.2, 1.0)
    trouble: telegram.Fault

    async def begin(self) -> None:
        await self.ground.scene.telegram.inject(self.trouble)

    async def end(self) -> None:
        await self.ground.scene.telegram.clear_faults()


class Conflict(_Trouble):
    name = "Telegram answers 409"
    trouble = telegram.Fault(status=409, description=CONFLICT, times=2)


class RefusedOnce(_Trouble):
    """As what stands before it does that starts anew."""

    name = "Telegram refuses the token once"
    harmless = True
    trouble = telegram.Fault(status=401, description="Unauthorized", times=1)


class TooMany(_Trouble):
    name = "Telegram answers 429"
    trouble = telegram.Fault(retry_after=1, times=2)


class BadGateway(_Trouble):
    name = "Telegram answers 502"
    leaderless = True
    trouble = telegram.Fault(status=502, times=None)


class BlackHole(_Trouble):
    name = "Telegram never answers"
    leaderless = True
    trouble = telegram.Fault(action="black_hole", times=None)


class DroppedAfter(_Trouble):
    """What it says about the offset has happened, the answer is lost."""

    name = "Telegram drops connections after its work"
    trouble = telegram.Fault(action="drop", after_processing=True, times=3)


To = Literal["random", "lower", "higher"]


class Reseeded(Fault):
    """Nobody writes for a moment, as if it were a week; then ids begin anew. Or they do so at once, as when they ran
    out, and what waits is forgotten by Telegram."""

    name = "update ids begin anew"
    of = ("random", "lower", "higher", "lower at once", "higher at once")
    lasts = (0.3, 0.8)

    async def begin(self) -> None:
        to, _, at_once = self.on.partition(" ")
        traffic, scene = self.ground.traffic, self.ground.scene
        await traffic.end()
        if at_once or await traffic.is_quiet(QUIET_WITHIN):
            await scene.telegram.reseed(scene.bot_id, cast(To, to), now=True)
        else:
            self.detail = "not done: something was always waiting"
        await traffic.begin()


ALL = (Conflict, RefusedOnce, TooMany, BadGateway, BlackHole, DroppedAfter, Reseeded)
