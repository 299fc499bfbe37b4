"""A connection of its own whose session has the advisory locks of one driver.

Its requests are made one at a time, each in a task of its own with a limit: who asks may be cancelled, and that costs
the other locks of the session nothing. What has not had its turn by then is never asked: else more would come in than
is worked off, where the server is far away and the locks are many. Who takes a lock lets all others go first.

A request that fails ends the connection, and with it all that the session had.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.errors import BackendRefused, ClusterLockError, StillHeld

from .connection import Connection
from .errors import SchemaGone
from .holding import Holding, overdue, tell_had, tell_lost
from .link import Link

T = TypeVar("T")

_SHORTLY = 1.0
"""Seconds for which one session may have the lock of a free row: who takes it has not written the row yet."""
_FORGOTTEN = 5.0
"""Seconds after which two looks at such a lock are not of one wait."""

# The server ends the session of a client that is gone. What it lacks of these it is not asked for.
_KEEP = """
SELECT pg_backend_pid() AS pid, set_config('tcp_keepalives_idle', $1, false),
       set_config('tcp_keepalives_interval', $2, false), set_config('tcp_keepalives_count', $3, false),
       set_config('tcp_user_timeout', $4, false),
       CASE WHEN current_setting('idle_session_timeout', true) IS NOT NULL
           THEN set_config('idle_session_timeout', '0', false) END
"""
_TRY = """
SELECT pg_backend_pid() AS pid, lives, holder,
       CASE WHEN lives AND coalesce(holder = $3, true) AND $5 THEN pg_try_advisory_lock($4) ELSE false END AS had
    FROM (SELECT cluster_lock.lives($3) AS lives, (SELECT k.lease FROM cluster_lock.key k
        WHERE k.prefix = $1 AND k.name = $2 AND cluster_lock.lives(k.lease)) AS holder) AS seen
"""
_TRY_AGAIN = """
SELECT pg_backend_pid() AS pid, lost.key, pg_try_advisory_lock(lost.key) AS had
    FROM unnest($2::text[], $3::bigint[], $4::text[]) AS lost (name, key, lease)
    JOIN cluster_lock.key k ON k.prefix = $1 AND k.name = lost.name AND k.lease = lost.lease
    WHERE cluster_lock.lives(lost.lease)
"""
_UNLOCK = "SELECT pg_backend_pid() AS pid, pg_advisory_unlock(key) FROM unnest($1::bigint[]) AS key"
_WHO = """
SELECT l.pid AS process, host(a.client_addr) AS client FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = $1
"""
_LIVE = "SELECT k.prefix, k.name FROM cluster_lock.key k WHERE k.lease IS NOT NULL AND cluster_lock.lives(k.lease)"


def key_of(prefix: str, name: str) -> int:
    """The number of the advisory lock; a signed one of 64 bits."""
    return int.from_bytes(hashlib.sha256((prefix + name).encode()).digest()[:8], signed=True)


@dataclass(frozen=True, slots=True)
class Try:
    """`holding`: None if the lock is not to be had now. `gone`: the lease is. `is_new`: the session had it not."""

    holding: Holding | None = None
    gone: bool = False
    is_new: bool = False


class AdvisorySession:
    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix
        self._turn, self._queue = asyncio.Lock(), asyncio.Lock()
        """Who takes a lock has the second one first: at most one of them stands before who waits for the turn alone."""
        self._at_work: asyncio.Future[Any] | None = None
        """Which has the turn."""
        self._unwanted: list[tuple[Holding, float]] = []
        """What is to be given back, and the moment of the look that said it."""
        self._tasks: set[asyncio.Future[Any]] = set()
        self._connection: Connection | None = None
        self._closed_by: dict[str, tuple[int, float, float]] = {}
        """By the lock's name: the server's process, when it was first seen in this wait, and last."""
        self.held: dict[int, Holding] = {}
        self.ttl = 0.0
        """The longest that was asked for: the server misses a dead client after about that time."""

    async def connect(self) -> None:
        """See to it that there is a connection, as far as can be known without a request."""
        work = self._begun(self._connect)
        try:
            await self._finished(work)
        except asyncio.CancelledError:
            self._call_off(work)
            raise

    async def take(self, name: str, lease: str) -> Try:
        """The advisory lock of `name`, if no other lease holds the row. Under the lease that holds the row already the
        answer is a holding in any case, which the row guards.

        Raises StillHeld for a lock that somebody has for longer than a moment although its row is free, and
        BackendRefused if that is the lock of another name.
        """
        work = self._begun(lambda until: self._take(name, lease, until), queued=True)
        try:
            return await self._finished(work)
        except asyncio.CancelledError:
            # No row was asked for. A turn after that request is ours, before anybody asks for this lock again.
            if not self._call_off(work):
                self._begun(lambda until: self._undo(work, until))
            raise

    async def give_back(self, holdings: Collection[Holding]) -> None:
        """Free them. Returns after half a request's time at the latest. What fails ends the session and so frees more
        than was asked for; it is not told."""
        await asyncio.wait([self.giving_back(holdings)], timeout=self._link.request_timeout / 2)

    def giving_back(self, holdings: Collection[Holding], seen: float = math.inf) -> asyncio.Future[None]:
        """`seen`: the moment of the look that said it; it says nothing of what was asked for later."""
        self._unwanted += [(holding, seen) for holding in holdings]
        return self._begun(self._give_back)

    def see_to_it(self) -> None:
        """Have again what an ended session had, as far as that is possible now; nobody waits for it."""
        if self.held:
            self._begun(self._try_again)

    async def close(self) -> None:
        await end(self._tasks)
        self._drop()

    # Each in a task of its own that has the turn.

    def _begun(self, request: Callable[[float], Coroutine[Any, Any, T]], *, queued: bool = False) -> asyncio.Future[T]:
        async def in_turn() -> T:
            async with self._queue if queued else contextlib.nullcontext(), self._turn:
                self._at_work = asyncio.current_task()
                try:
                    return await request(self._link.deadline())
                finally:
                    self._at_work = None

        task = asyncio.ensure_future(in_turn())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to who waits, if anybody does

    def _call_off(self, work: asyncio.Future[Any]) -> bool:
        """Cancel it if it has not had its turn. Was it never asked?"""
        if work.done() or work is self._at_work:
            return work.cancelled()
        work.cancel()
        return True

    async def _finished(self, task: asyncio.Future[T]) -> T:
        await asyncio.wait([task])  # which leaves it alone when it is cancelled itself
        return task.result()

    async def _connect(self, until: float) -> None:
        if self._connection is not None and not self._connection.is_fresh:
            self._drop()
        if self._connection is None:
            idle, interval = max(1, round(self.ttl / 2)), max(1, round(self.ttl / 8))
            ours = {"keepalives_idle": idle, "keepalives_interval": interval, "keepalives_count": 4}
            self._connection = await self._link.connect(until, ours, direct=True)
            values = (str(idle), str(interval), "4", str(max(1000, round(self.ttl * 1000))))
            await self._ask(_KEEP, values, until, "have the server miss us")

    async def _take(self, name: str, lease: str, until: float) -> Try:
        key = key_of(self._prefix, name)
        mine = self.held.get(key)
        if mine is not None and mine.name != name:
            raise self._collision(name, mine.name)
        await self._connect(until)
        wants = mine is None or (mine.lease == lease and not mine.had)
        (told,) = await self._ask(_TRY, (self._prefix, name, lease, key, wants), until, f"try to lock {name}")
        if not told["lives"]:
            return Try(gone=True)
        if told["holder"] not in (None, lease):
            self._closed_by.pop(name, None)
            return Try()
        is_new = mine is None
        if mine is None and (told["had"] or told["holder"] == lease):
            mine = self.held[key] = Holding(name, key, lease, told["had"])
        if mine is not None and mine.lease == lease and (mine.had or told["had"] or told["holder"] == lease):
            self._closed_by.pop(name, None)
            mine.had, mine.since = mine.had or told["had"], math.inf
            if mine.had:
                tell_had([mine])
            return Try(mine, is_new=is_new)
        await self._check_closed(name, key, until)
        return Try()

    async def _check_closed(self, name: str, key: int, until: float) -> None:
        """Raises what people should hear of a lock that somebody has although its row is free."""
        told, now = await self._who_has(name, key, until), clock.now()
        if told is None:
            return  # nobody any more
        self._closed_by = {each: seen for each, seen in self._closed_by.items() if now - seen[2] <= _FORGOTTEN}
        before, first, _ = self._closed_by.get(name, (0, now, now))
        if before != told["process"]:
            first = now
        self._closed_by[name] = told["process"], first, now
        if now - first < _SHORTLY:
            return
        for live in await self._ask(_LIVE, (), until, "look for another lock of the same number"):
            if key_of(live["prefix"], live["name"]) == key and (live["prefix"], live["name"]) != (self._prefix, name):
                raise self._collision(name, live["name"])
        raise StillHeld(
            f"{self._link.backend}: the lease of {name} is over, but {_shown(told)} still has its advisory lock: its"
            " client is slow, stopped or gone; of one that is gone the server ends it by keepalives, and of any"
            f" SELECT pg_terminate_backend({told['process']}) does"
        )

    async def _who_has(self, name: str, key: int, until: float) -> dict[str, Any] | None:
        rows = await self._ask(_WHO, (key,), until, f"see who has {name}")
        return rows[0] if rows else None

    async def _undo(self, work: asyncio.Future[Try], until: float) -> None:
        if not work.cancelled() and work.exception() is None:
            tried = work.result()
            if tried.holding is not None and tried.is_new:
                self._unwanted.append((tried.holding, math.inf))
                await self._give_back(until)
            elif tried.holding is not None:
                tried.holding.since = clock.now()

    async def _give_back(self, until: float) -> None:
        """All that is unwanted by now, in one request."""
        unwanted, self._unwanted = self._unwanted, []
        mine = {
            held.key: held
            for held, seen in unwanted
            if self.held.get(held.key) is held and (seen == math.inf or seen > held.since)
        }
        try:
            if self._connection is not None and (keys := [holding.key for holding in mine.values() if holding.had]):
                await self._ask(_UNLOCK, (keys,), until, "unlock")
        finally:  # and not before: who gives back what is being given back waits for it
            for key in mine:
                del self.held[key]

    async def _try_again(self, until: float) -> None:
        # Nobody else has got it meanwhile, if our row stands: who gets the advisory lock and not the row gives it back.
        # Of a session that the server takes for alive it is not to be had yet, and keeps others out as well.
        if self._connection is None or not self._connection.is_fresh:
            self._drop()
        lost = [holding for holding in self.held.values() if not holding.had]
        if not lost:
            return
        try:
            await self._have_again(lost, until)
        except ClusterLockError as error:  # nobody waits for us, and the next renewal tries again
            tell_lost(overdue(lost, self.ttl), str(error))

    async def _have_again(self, lost: Sequence[Holding], until: float) -> None:
        await self._connect(until)
        names, keys, leases = zip(*((held.name, held.key, held.lease) for held in lost), strict=True)
        values = (self._prefix, list(names), list(keys), list(leases))
        tried = {}
        for told in await self._ask(_TRY_AGAIN, values, until, "lock again"):
            holding = tried[told["key"]] = self.held[told["key"]]
            holding.had = told["had"]
        tell_had(holding for holding in tried.values() if holding.had)
        if late := overdue(tried.values(), self.ttl):
            who = await self._who_has(late[0].name, late[0].key, until)
            if who is not None:
                tell_lost(late, f"{self._link.backend}: {_shown(who)} has that of {late[0].name}")

    async def _ask(self, query: str, values: Sequence[Any], until: float, doing: str) -> list[dict[str, Any]]:
        assert self._connection is not None
        try:
            return await self._connection.ask(query, values, until, doing)
        except BaseException as error:
            self._drop()
            if isinstance(error, SchemaGone):
                self._link.forget_schema()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for holding in self.held.values():
            holding.lose()

    def _collision(self, name: str, other: str) -> ClusterLockError:
        return BackendRefused(
            f"{self._link.backend}: the locks {name} and {other} have the same number as advisory locks, so that one"
            " keeps the other closed: give one of them another name"
        )


def _shown(process: Mapping[str, Any]) -> str:
    whose = f" (of {process['client']})" if process["client"] else ""
    return f"process {process['process']} of the server{whose}"
