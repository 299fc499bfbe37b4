"""LISTEN on a connection of its own, for all who wait in one driver.

A notification is a hint and no more: who waits looks before it waits, when it is woken, and at the end. What the hint
must not do is to be silent unnoticed, so that a session which has forgotten us, or a server that does not answer, is
found out by a heartbeat on the same session, and fails those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Collection

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.errors import BackendUnavailable, ClusterLockError

from .connection import pooled
from .link import Link

_HEARTBEAT = """
SELECT pg_backend_pid() AS pid, EXISTS (SELECT FROM pg_listening_channels() c WHERE c = $1) AS listens
"""


class Bell:
    """What rings for one who waits."""

    def __init__(self, names: Collection[str]) -> None:
        self._topics = frozenset(map(_md5, names))
        self._rung = asyncio.Event()
        self._failure: ClusterLockError | None = None

    def hear(self, topic: str) -> None:
        if topic in self._topics:
            self._rung.set()

    def fail(self, error: ClusterLockError) -> None:
        self._failure = error
        self._rung.set()

    async def wait(self, until: float) -> None:
        """Return when it rings, or at that moment. Raises what ended the listening."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, until - clock.now())):
                await self._rung.wait()
        if self._failure is not None:
            raise BackendUnavailable(str(self._failure)) from self._failure
        self._rung.clear()


class Listener:
    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._channel = f"cluster_lock_{_md5(prefix)}"
        self._bells: set[Bell] = set()
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Event = asyncio.Event()
        self.beat = link.request_timeout
        """Seconds from one heartbeat to the next."""

    @contextlib.asynccontextmanager
    async def bell(self, names: Collection[str]) -> AsyncIterator[Bell]:
        """One that rings for each change of these names that is committed from now on."""
        bell = Bell(names)
        self._bells.add(bell)
        try:
            if self._task is None:
                self._listening = asyncio.Event()
                self._task = asyncio.ensure_future(self._listen(self._listening))
            await self._listening.wait()  # which takes a request's time at most
            yield bell
        finally:
            self._bells.discard(bell)

    async def close(self) -> None:
        if self._task is not None:
            await end([self._task])

    async def _listen(self, listening: asyncio.Event) -> None:
        """Until nobody waits any more, for the time of a heartbeat."""
        connection = None
        try:
            until = self._link.deadline()
            connection = await self._link.connect(until)
            await connection.ask(f"LISTEN {self._channel}", (), until, "listen")
            listening.set()
            while self._bells:
                beat = clock.now() + self.beat
                while (left := beat - clock.now()) > 0:
                    for topic in await connection.hear(left):
                        for bell in self._bells:
                            bell.hear(topic)
                (told,) = await connection.ask(_HEARTBEAT, (self._channel,), self._link.deadline(), "listen")
                if not told["listens"]:
                    raise pooled(self._link.backend)
        except ClusterLockError as error:
            for bell in self._bells:
                bell.fail(error)
        finally:
            # In one go: who comes now begins anew.
            self._task = None
            listening.set()
            if connection is not None:
                connection.close()


def _md5(text: str) -> str:
    """As PostgreSQL's md5(): names may be longer than a notification."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
