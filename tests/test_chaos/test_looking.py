"""Who looks at the store during a round can be ended at any moment: else the round never ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from chaos.backends import Redis

from cluster_lock.testing.servers import RedisServer

TIMES = 60
"""Without care about one in two was not ended, on Python 3.11 (redis-py 8.1.0)."""
WITHIN = 5.0


@pytest.mark.proof
async def test_looking_at_redis_ends_when_it_is_cancelled() -> None:
    """At whatever step of it that comes."""
    scene: Any = SimpleNamespace(lock="leader/of-nobody")
    with RedisServer() as server:
        async with Redis._looking_at(server, scene) as look:
            for steps in range(TIMES):
                looking = asyncio.create_task(look_again_and_again(look))
                for _ in range(steps % 30):
                    await asyncio.sleep(0)
                looking.cancel()
                assert await asyncio.wait([looking], timeout=WITHIN) == ({looking}, set())


async def look_again_and_again(look: Any) -> None:
    while True:
        await look()
        await asyncio.sleep(0)
