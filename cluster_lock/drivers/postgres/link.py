"""The connections of one driver: a few for requests, opened when needed and kept, and whatever the listener takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Any

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable, ClusterLockError

from .address import PostgresAccess
from .connection import Connection, pooled, pooled_session
from .errors import SchemaGone
from .library import load
from .schema import Found, find

_AT_ONCE = 4
"""Requests; more of them take turns. A renewal waits for nobody."""
_PID = "SELECT pg_backend_pid() AS pid"


class Link:
    def __init__(self, access: PostgresAccess, request_timeout: float) -> None:
        self._psycopg = load()
        self._access = access
        self.backend = str(access)
        self.request_timeout = request_timeout
        self._attempts = list(access.attempts)
        self._idle: list[Connection] = []
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._closed = False
        self._schema: Found | None = None

    def deadline(self) -> float:
        return clock.now() + self.request_timeout

    async def ask(self, verb: str, values: Sequence[Any], doing: str, *, urgent: bool = False) -> list[dict[str, Any]]:
        """The rows that the function `cluster_lock.VERB` gives, and in each the `pid` of who answered. What is missing
        of the schema is made first."""
        return await self._ask(verb, values, doing, make=True, urgent=urgent)

    async def look(self, verb: str, values: Sequence[Any], doing: str) -> list[dict[str, Any]]:
        """As `ask`, and changes nothing: no rows where no schema is."""
        return await self._ask(verb, values, doing, make=False)

    async def _ask(
        self, verb: str, values: Sequence[Any], doing: str, *, make: bool, urgent: bool = False
    ) -> list[dict[str, Any]]:
        until = self.deadline()
        async with contextlib.nullcontext() if urgent else self._turn(until, doing):
            connection = self._take() or await self.connect(until)
            try:
                rows = []
                found = await self.see_to_schema(connection, until, make=make)
                if make or found is not Found.NOTHING:
                    rows = await connection.ask(_query(verb, len(values)), values, until, doing)
            # The latter most likely by a limit of who asks.
            except (BackendUnavailable, asyncio.CancelledError) as error:
                if isinstance(error, SchemaGone):
                    self.forget_schema()
                self._drop_idle()  # they have ended with it, most likely: each would cost a request its time
                raise
            self._put_back(connection)
        return rows

    def forget_schema(self) -> None:
        """A part of it is gone: the next request that may make it does."""
        self._schema = None

    async def connect(
        self, until: float, options: Mapping[str, Any] | None = None, *, direct: bool = False
    ) -> Connection:
        """A new one, to the first host that takes writes. The host that did not is asked last the next time.

        `options`: of libpq, where nobody has said otherwise. `direct`: to a process of the server that is ours alone,
        and no pooler between.
        """
        if self._closed:
            raise BackendUnavailable(f"{self.backend}: the driver is closed")
        failures: list[ClusterLockError] = []
        for left, given in zip(range(len(self._attempts), 0, -1), list(self._attempts), strict=True):
            now = clock.now()
            try:
                connection = await Connection.connect(
                    self._psycopg,
                    {**(options or {}), **given},
                    self.backend,
                    now + (until - now) / left,
                    self.request_timeout,
                )
                if connection.is_behind_a_pooler and direct:
                    connection.close()
                    raise pooled_session(self.backend)
                if connection.is_behind_a_pooler:
                    await self._check_pooler(connection, given, until)
            except ClusterLockError as error:
                failures.append(error)
                if self._attempts[0] is given:  # else another request has found it out before us
                    self._attempts.append(self._attempts.pop(0))
                continue
            return connection
        passing = [error for error in failures if isinstance(error, BackendUnavailable)]
        try:
            raise (passing or failures)[-1]
        finally:
            # Else the error would hold itself, and with it the sockets of these attempts.
            del failures, passing

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def see_to_schema(self, connection: Connection, until: float, *, make: bool) -> Found:
        """What there is of it, or was before it was made (`make`). Asked for until that is enough."""
        if self._schema is Found.WHOLE or (self._schema is Found.SOME and not make):
            return self._schema
        try:
            found = await find(connection, self.backend, until, make=make)
        except ClusterLockError:
            connection.close()  # cancelled in the middle of a request it would end by itself
            raise
        if found is not Found.NOTHING or make:
            self._schema = Found.WHOLE if make else found
        return found

    async def _check_pooler(self, connection: Connection, given: Mapping[str, Any], until: float) -> None:
        """In transaction mode the server's process that answered us answers the next one who comes."""
        try:
            other = await Connection.connect(self._psycopg, given, self.backend, until, self.request_timeout)
        except BaseException:
            connection.close()
            raise
        try:
            if other.pid == connection.pid:
                connection.close()
                raise pooled(self.backend)
            await connection.ask(_PID, (), until, "look for a pooler")
        finally:
            other.close()

    @contextlib.asynccontextmanager
    async def _turn(self, until: float, doing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(max(0.0, until - clock.now())):
                await self._turns.acquire()
        except TimeoutError as error:
            raise BackendUnavailable(f"{self.backend} did not answer in time: {doing}") from error
        try:
            yield
        finally:
            self._turns.release()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh:
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= _AT_ONCE:
            connection.close()
        else:
            self._idle.append(connection)


@cache
def _query(verb: str, values: int) -> str:
    places = ", ".join(f"${number}" for number in range(1, values + 1))
    return f"SELECT pg_backend_pid() AS pid, f.* FROM cluster_lock.{verb}({places}) AS f"
