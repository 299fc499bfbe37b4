"""Waiting for the bots. Looked at now and then: the processor belongs to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cluster_lock import clock

LOOK_EVERY = 0.2


async def came_true(condition: Callable[[], Awaitable[bool]], within: float, *, every: float = LOOK_EVERY) -> bool:
    """Did it, within so many seconds?"""
    end = clock.now() + within
    while True:
        if await condition():
            return True
        if clock.now() > end:
            return False
        await asyncio.sleep(every)
