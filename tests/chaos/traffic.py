"""What people write to the bot meanwhile."""

from __future__ import annotations

import asyncio
import random

from support.hosts import Scene

from cluster_lock.aio import end

from .waiting import came_true

RATE, CHATS = 10.0, tuple(range(1, 9))
SLOW_CHATS, SLOW_EVERY = (101, 102, 103), 0.5
STUBBORN = 0.15
"""The share of them that do not heed a cancellation, some for longer than a hand-over waits."""
LONG_CHATS, LONG = (104, 105, 106, 107), 0.1
"""The share of those that a hand-over cuts off, some of them when they were confirmed early."""
LOOK_EVERY = 0.05


class Traffic:
    """Many short messages, and some whose handlers take a while: most faults find some of those under way. `stubborn`:
    some of those swallow their cancellation."""

    def __init__(self, scene: Scene, seed: int, *, stubborn: bool) -> None:
        self._scene = scene
        self._stubborn = STUBBORN if stubborn else 0.0
        self._source = random.Random(seed)
        self._slow: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self._scene.telegram.traffic_on(self._scene.bot_id, rate=RATE, chats=CHATS)
        self._slow = asyncio.create_task(self._push_slow())

    async def end(self) -> None:
        """Nothing is sent any more. Raises what went wrong meanwhile."""
        await self._scene.telegram.traffic_off(self._scene.bot_id)
        slow, self._slow = self._slow, None
        if slow is not None:
            await end([slow])
            if not slow.cancelled():
                slow.result()

    async def is_quiet(self, within: float) -> bool:
        """Has everything been confirmed in so many seconds?"""

        async def nothing_waits() -> bool:
            state = await self._scene.telegram.state()
            return not state["bots"][str(self._scene.bot_id)]["pending"]

        return await came_true(nothing_waits, within, every=LOOK_EVERY)

    async def _push_slow(self) -> None:
        while True:
            drawn = self._source.random()
            word, longest = ("insist", 4.0) if drawn < self._stubborn else ("work", 1.5)
            chat, seconds = self._source.choice(SLOW_CHATS), self._source.uniform(0.2, longest)
            if drawn > 1 - LONG:
                chat, seconds = self._source.choice(LONG_CHATS), self._source.uniform(2.5, 8.0)
            await self._scene.telegram.push(self._scene.bot_id, chat_id=chat, text=f"{word} {seconds:.2f}")
            await asyncio.sleep(SLOW_EVERY)
