"""What stands under the lock's key, all the time: the store's own word on who holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.hosts import Scene

from cluster_lock import clock
from cluster_lock.aio import end

from .backends import BACKENDS

Json = dict[str, Any]
LOOK_EVERY = 0.1


@asynccontextmanager
async def followed(scene: Scene) -> AsyncIterator[list[Json]]:
    """The changes so far, as the list grows: at, lease, index."""
    seen: list[Json] = []
    following = asyncio.create_task(_follow(scene, seen))
    try:
        yield seen
    finally:
        await end([following])
        if not following.cancelled():
            following.result()  # nobody has looked since


async def _follow(scene: Scene, seen: list[Json]) -> None:
    async with BACKENDS[scene.hosts.backend].looking(scene) as look:
        while True:
            stands = await look()
            if stands is not None and (not seen or stands != {k: v for k, v in seen[-1].items() if k != "at"}):
                seen.append({"at": clock.now(), **stands})
            await asyncio.sleep(LOOK_EVERY)
