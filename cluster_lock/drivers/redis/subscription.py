"""What the scripts publish: the names that changed.

A subscription is trusted no longer than its connection is known to live: a half-open one is silent for ever. So who has
heard nothing asks it for a sign of life, and reads the names anyway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any

from cluster_lock.aio import end
from cluster_lock.errors import BackendUnavailable

from .link import RedisLink

_REMEMBERED = 1000
"""Changes."""


class Subscription:
    """One connection, made when it is first needed and again after its end. `limit`: seconds for a sign of life."""

    def __init__(self, library: Any, link: RedisLink, channel: str, limit: float) -> None:
        self._library, self._link, self._channel, self._limit = library, link, channel, limit
        self._connection: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._making = asyncio.Lock()
        self._waiting: dict[asyncio.Future[None], Collection[str]] = {}
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        self._pings = 0
        self._log: deque[str] = deque(maxlen=_REMEMBERED)
        self.generation = 0
        """Of the connection. What was published between two of them nobody heard."""
        self.heard = 0
        """How many changes were heard so far."""

    async def ready(self) -> int:
        """The generation, as soon as the server has confirmed it. Raises BackendUnavailable and what a connection
        raises."""
        try:
            async with asyncio.timeout(self._limit), self._making:
                if self._reading is None or self._reading.done():
                    await self._begin()
        except TimeoutError as error:
            raise BackendUnavailable("the subscription to changes was not confirmed in time") from error
        return self.generation

    def has_heard(self, names: Collection[str], since: int) -> bool:
        """Was one of these told to have changed after so many changes? True, too, where that is forgotten."""
        news = self.heard - since
        return news > len(self._log) or any(name in names for name in list(self._log)[len(self._log) - news :])

    async def woken(self, names: Collection[str], since: int, at_most: float) -> bool:
        """Wait until one of these is told to have changed, for at most so many seconds: whether it was. Returns also
        when the connection ends."""
        if self.has_heard(names, since):
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = names
        try:
            done, _ = await asyncio.wait([waiter], timeout=at_most)
        finally:
            del self._waiting[waiter]
        return bool(done)

    async def check(self) -> None:
        """Ask for a sign of life; without one in time the connection is dropped."""
        connection = self._connection
        if connection is None:
            return
        self._pings += 1
        payload = str(self._pings).encode()
        pong = self._pongs[payload] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limit):
                await self._link.send(connection, "PING", payload)
                await pong
        except (TimeoutError, OSError, BackendUnavailable, self._library.exceptions.RedisError):
            await self._end()
        finally:
            self._pongs.pop(payload, None)

    async def close(self) -> None:
        await self._end()

    async def _begin(self) -> None:
        connection = await self._link.connect()
        try:
            await self._link.send(connection, "SUBSCRIBE", self._channel)
            await connection.read_response()
        except (OSError, self._library.exceptions.RedisError) as error:
            await self._link.drop(connection)
            raise self._link.mapped(error, f"subscribe to {self._channel}") from error
        except BaseException:
            await self._link.drop(connection)
            raise
        self.generation += 1
        self._connection = connection
        self._reading = asyncio.create_task(self._read(connection), name=f"subscription to {self._channel}")

    async def _read(self, connection: Any) -> None:
        """Until the connection ends."""
        try:
            while True:
                message = await connection.read_response()
                if isinstance(message, bytes | str):
                    continue
                kind, *rest = message
                if kind == b"message":
                    self._told(rest[-1].decode(errors="replace"))
                elif kind == b"pong" and (pong := self._pongs.get(rest[0])) is not None and not pong.done():
                    pong.set_result(None)
        except (OSError, EOFError, self._library.exceptions.RedisError):
            pass  # who waits is woken below, and reads
        finally:
            self._connection = None
            await self._link.drop(connection)
            self.generation += 1
            self._wake(lambda names: True)

    def _told(self, name: str) -> None:
        self.heard += 1
        self._log.append(name)
        self._wake(lambda names: name in names)

    def _wake(self, concerns: Any) -> None:
        for waiter, names in self._waiting.items():
            if not waiter.done() and concerns(names):
                waiter.set_result(None)

    async def _end(self) -> None:
        if self._reading is not None:
            await end([self._reading])
            self._reading = None
