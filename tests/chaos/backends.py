"""What is special about each backend: what can befall its store, what its promises are worth in seconds, and how one
sees what stands under the lock's key. All else that a person does there is `support.stores.Operator`'s."""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from support.backends import POSTGRES_RELEASE
from support.diary_bot import client_name
from support.hosted import Pair
from support.hosts import Scene

from cluster_lock.drivers.file.keyfile import file_name
from cluster_lock.testing.servers import ConsulServer, EtcdServer, PostgresServer, RedisServer
from cluster_lock.values import Record

from .faults import (
    CLOSABLE,
    FOLDER,
    FORGETFUL,
    ONE_PRIMARY,
    PASSING_ON,
    RELEASED,
    RESTORABLE,
    SEVERAL_NODES,
    WIRES,
)

Json = dict[str, Any]
Look = Callable[[], Awaitable[Json | None]]
"""The lease that stands under the lock's key, and its index; None when nothing does, or nobody can say."""
LOOK_WITHIN = 0.5


def told_by(value: str) -> Json:
    """Who holds the lock, and whether it was given to that one, by the record that stands there."""
    record = Record.from_bytes(base64.b64decode(value))
    if record is None:
        return {}
    return {"holder": client_name(record.instance, record.pid), "given": record.handed_over_by is not None}


class Backend(ABC):
    """`room` has the driver. `has`: what faults may need. `frees_after`, in ttl: until the lock of one who is silent is
    free. `silent_after_start`, in ttl: a server that was started gives nothing away so long."""

    room: ClassVar[str]
    has: ClassVar[frozenset[str]]
    frees_after: ClassVar[float] = 1.0
    silent_after_start: ClassVar[float] = 0.0

    @classmethod
    @abstractmethod
    def looking(cls, scene: Scene) -> AbstractAsyncContextManager[Look]:
        """In this context one may look again and again."""


class _OverHttp(Backend):
    """Whichever node answers."""

    has = frozenset({WIRES, SEVERAL_NODES, RELEASED})

    @classmethod
    @asynccontextmanager
    async def looking(cls, scene: Scene) -> AsyncIterator[Look]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_WITHIN)) as client:
            yield partial(cls._first, scene, client)

    @classmethod
    async def _first(cls, scene: Scene, client: aiohttp.ClientSession) -> Json | None:
        for node in scene.hosts.store.nodes:
            try:
                return await cls._asked(node, client, scene.lock)
            except (aiohttp.ClientError, TimeoutError, ValueError):  # the nemesis was there
                continue
        return None

    @classmethod
    @abstractmethod
    async def _asked(cls, node: Any, client: aiohttp.ClientSession, key: str) -> Json | None:
        """What one node says."""


class Etcd(_OverHttp):
    room = "drivers/etcd"
    has = _OverHttp.has | {CLOSABLE, PASSING_ON}

    @classmethod
    async def _asked(cls, node: EtcdServer, client: aiohttp.ClientSession, key: str) -> Json | None:
        body = {"key": base64.b64encode(key.encode()).decode()}
        async with client.post(f"{node.endpoint}/v3/kv/range", json=body) as answer:
            answer.raise_for_status()
            found = (await answer.json(content_type=None)).get("kvs", [])
        if not found:
            return None
        lease = int(found[0].get("lease", 0))
        stands = {"lease": f"{lease:x}" if lease else "", "index": int(found[0]["mod_revision"])}
        return stands | told_by(found[0].get("value", ""))


class Etcd35(Etcd):
    """Its tools can let the revisions of a backup go on above all that were."""

    has = Etcd.has | {RESTORABLE}


class Consul(_OverHttp):
    """A session lives for up to twice its ttl. Its indexes go on after a restore."""

    has = _OverHttp.has | {RESTORABLE}
    room = "drivers/consul"
    frees_after = 2.0

    @classmethod
    async def _asked(cls, node: ConsulServer, client: aiohttp.ClientSession, key: str) -> Json | None:
        async with client.get(f"{node.url}/v1/kv/{key}?consistent") as answer:
            rows = await answer.json() if answer.status == 200 else []
        if not rows:
            return None
        return {"lease": rows[0].get("Session", ""), "index": rows[0]["ModifyIndex"]} | told_by(rows[0]["Value"] or "")


class _Replicated(Backend):
    """Whichever is the primary. What a replica has may be old."""

    silent_after_start = 1.0

    @classmethod
    @asynccontextmanager
    async def looking(cls, scene: Scene) -> AsyncIterator[Look]:
        async with AsyncExitStack() as stack:
            pair = scene.hosts.store
            assert isinstance(pair, Pair)
            looks = [await stack.enter_async_context(cls._looking_at(node, scene)) for node in pair.nodes]

            async def look() -> Json | None:
                return await looks[pair.primary]()

            yield look

    @classmethod
    @abstractmethod
    def _looking_at(cls, node: Any, scene: Scene) -> AbstractAsyncContextManager[Look]:
        """None from a replica."""


class Redis(_Replicated):
    """Nothing is lost with its data but time: tokens are made of the clock."""

    room = "drivers/redis"
    has = frozenset({WIRES, ONE_PRIMARY, FORGETFUL, CLOSABLE})

    @classmethod
    @asynccontextmanager
    async def _looking_at(cls, node: RedisServer, scene: Scene) -> AsyncIterator[Look]:
        import redis.asyncio
        from redis.backoff import NoBackoff

        client: Any = redis.asyncio.Redis(
            host=node.host,
            port=node.port,
            # Its own limit may swallow our cancellation on Python 3.11 (asyncio.wait_for there), so it has none.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )
        async with client:

            async def look() -> Json | None:
                try:
                    async with asyncio.timeout(LOOK_WITHIN):
                        stands = await client.get(scene.lock) or b""
                        role = (await client.execute_command("ROLE"))[0]
                    if role != b"master":
                        return None
                    lease, index, _ = stands.split(b" ", 2)
                    return {"lease": lease.decode(), "index": int(index)}
                except (redis.exceptions.RedisError, TimeoutError, ValueError):  # the nemesis was there, or a person
                    return None

            yield look


class Postgres(_Replicated):
    room = "drivers/postgres"
    has = frozenset({WIRES, ONE_PRIMARY, CLOSABLE})

    @classmethod
    @asynccontextmanager
    async def _looking_at(cls, node: PostgresServer, scene: Scene) -> AsyncIterator[Look]:
        import psycopg

        where = {"prefix": scene.prefix, "name": scene.lock.removeprefix(scene.prefix)}
        question = (
            "SELECT lease, index FROM cluster_lock.key"
            " WHERE prefix = %(prefix)s AND name = %(name)s AND NOT pg_is_in_recovery()"
        )
        connection: psycopg.AsyncConnection | None = None

        async def look() -> Json | None:
            nonlocal connection
            try:
                async with asyncio.timeout(LOOK_WITHIN):
                    if connection is None or connection.closed:
                        connection = await psycopg.AsyncConnection.connect(node.dsn, autocommit=True)
                    row = await (await connection.execute(question, where)).fetchone()
                return {"lease": row[0], "index": row[1]} if row and row[0] else None
            except (psycopg.Error, TimeoutError):  # the nemesis was there
                return None

        try:
            yield look
        finally:
            if connection is not None:
                await connection.close()


class File(Backend):
    """The bots share a folder of the one machine: nothing can come between them and it."""

    room = "drivers/file"
    has = frozenset({FOLDER, RELEASED})

    @classmethod
    @asynccontextmanager
    async def looking(cls, scene: Scene) -> AsyncIterator[Look]:
        folder = Path(scene.hosts.store.backend().section["directory"])
        path = folder / "keys" / file_name(scene.lock)

        async def look() -> Json | None:
            try:
                head = json.loads(path.read_bytes().partition(b"\n")[0])
                return {"lease": head["lease"], "index": head["index"]} if head["lease"] else None
            except (OSError, ValueError, KeyError):  # free, or a person was there
                return None

        yield look


BACKENDS: dict[str, type[Backend]] = {
    "etcd34": Etcd,
    "etcd35": Etcd35,
    "consul": Consul,
    "redis": Redis,
    **dict.fromkeys(POSTGRES_RELEASE, Postgres),
    "file": File,
}
