"""What stands under the lock's key, all the time: the store's own word on who holds it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from support.hosts import Scene

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.testing.servers import ConsulServer, EtcdServer

Json = dict[str, Any]
LOOK_EVERY = 0.1
LOOK_WITHIN = aiohttp.ClientTimeout(total=0.5)


@asynccontextmanager
async def followed(scene: Scene) -> AsyncIterator[list[Json]]:
    """The changes so far, as the list grows: at, lease, index."""
    seen: list[Json] = []
    following = asyncio.create_task(_follow(scene, seen))
    try:
        yield seen
    finally:
        await end([following])


async def _follow(scene: Scene, seen: list[Json]) -> None:
    async with aiohttp.ClientSession(timeout=LOOK_WITHIN) as client:
        while True:
            stands = await _read(scene, client)
            if stands is not None and (not seen or stands.items() != {k: seen[-1][k] for k in stands}.items()):
                seen.append({"at": clock.now(), **stands})
            await asyncio.sleep(LOOK_EVERY)


async def _read(scene: Scene, client: aiohttp.ClientSession) -> Json | None:
    """From the first node that answers; None when none does, or when nothing stands there."""
    for node in scene.hosts.store.nodes:
        try:
            return await _stands(node, client, scene.lock)
        except (aiohttp.ClientError, TimeoutError, ValueError):  # the nemesis was there
            continue
    return None


async def _stands(node: EtcdServer | ConsulServer, client: aiohttp.ClientSession, key: str) -> Json | None:
    if isinstance(node, ConsulServer):
        async with client.get(f"{node.url}/v1/kv/{key}?consistent") as answer:
            rows = await answer.json() if answer.status == 200 else []
        return {"lease": rows[0].get("Session", ""), "index": rows[0]["ModifyIndex"]} if rows else None
    body = {"key": base64.b64encode(key.encode()).decode()}
    async with client.post(f"{node.endpoint}/v3/kv/range", json=body) as answer:
        answer.raise_for_status()
        found = (await answer.json(content_type=None)).get("kvs", [])
    return {"lease": found[0].get("lease", ""), "index": int(found[0]["mod_revision"])} if found else None
