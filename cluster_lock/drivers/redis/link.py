"""Requests to the primary: a few at once, each on a connection of its own, which is kept for the next one.

A request that did not come to its end takes its connection along: the next one would read its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError

from .address import RedisAccess
from .connections import Connections
from .refusals import says_no_primary
from .script import Script
from .scripts import MARK, PRIMARY_FOR
from .server import Server

_AT_ONCE = 4
"""Requests; more of them take turns. A renewal waits for nobody."""

Locks = Mapping[str, tuple[str, int] | None]
"""By name, the lease and the index; None: nobody holds it."""


class RedisLink(Connections):
    def __init__(self, library: Any, access: RedisAccess, prefix: str, limit: float, replicas: int = 0) -> None:
        super().__init__(library, access, limit)
        self._prefix, self._replicas = prefix, replicas
        self._idle: list[Any] = []
        self._turns, self._grants = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)
        """The latter for grants where replicas are waited for, so that these keep nobody else waiting."""
        self._copied: dict[str, tuple[tuple[str, str], str, int]] = {}
        """Locks that enough replicas have, as they were read: of which server, lease and index."""

    async def close(self) -> None:
        self._idle.clear()
        await super().close()

    async def run(
        self,
        script: Script,
        *arguments: str | bytes,
        before: Callable[[], None] | None = None,
        locks: Callable[[Any], Locks] | None = None,
        urgent: bool = False,
    ) -> Any:
        """What the script answers. Where something is granted, `before` is asked when the server is known and nothing
        is sent yet; what it raises is raised. Where that was asked for, enough replicas must have what was granted, or
        the locks that the answer shows, as `locks` finds them."""

        async def exchange(connection: Any, server: Server) -> Any:
            if before is not None:
                if self.known.is_unasked(server):
                    who = ":".join(server.identity)
                    self.known.told(server, float(await self._script(connection, server, PRIMARY_FOR, who)))
                before()
            answer = await self._script(connection, server, script, *arguments)
            if self._replicas and locks is not None:
                await self._wait_for_locks(connection, server, locks(answer))
            elif self._replicas and before is not None:
                await self._wait_for_replicas(connection, server)
            return answer

        takes_long = bool(self._replicas) and before is not None
        turns = contextlib.nullcontext() if urgent else self._grants if takes_long else self._turns
        return await self._bounded(exchange, script.name, turns)

    async def ask(self, *command: str | bytes | int) -> Any:
        """What some server answers to a command, which may not be the primary any more."""

        async def exchange(connection: Any, server: Server) -> Any:
            return await self._exchange(connection, *command)

        return await self._bounded(exchange, str(command[0]), self._turns)

    # Below one request.

    async def _bounded(self, exchange: Any, doing: str, turns: AbstractAsyncContextManager[None]) -> Any:
        self._access.look_for_new_files()
        try:
            async with asyncio.timeout(self._limit), turns:
                return await self._answered(exchange, doing)
        except TimeoutError as error:
            raise BackendUnavailable(f"{self._access.shown} did not answer in time ({doing})") from error

    async def _answered(self, exchange: Any, doing: str) -> Any:
        try:
            connection = self._idle.pop() if self._idle else await self.connect()
            self._busy.add(connection)
            try:
                return await self._with(connection, exchange, doing)
            finally:
                self._busy.discard(connection)
        except asyncio.CancelledError:  # by the limit, ours or that of who asks
            await self._drop_idle()
            raise

    async def _with(self, connection: Any, exchange: Any, doing: str) -> Any:
        errors, server = self._library.exceptions, self._open.get(connection)
        try:
            if server is None:
                raise BackendUnavailable(f"{self._access.shown}: the connection was closed for another primary")
            answer = await exchange(connection, server)
        except ClusterLockError:
            await self._keep(connection)
            raise
        except errors.ResponseError as error:
            if says_no_primary(errors, error):  # it was once: the next one is to be found
                await self._leave(server)
                await self.drop(connection)
            else:
                await self._keep(connection)
            raise self.mapped(error, doing) from error
        except (errors.ConnectionError, errors.TimeoutError, OSError, EOFError) as error:
            await self.drop(connection)
            await self._drop_idle()
            raise BackendUnavailable(f"{self._access.shown}: {doing}: {error}") from error
        except errors.RedisError as error:
            await self.drop(connection)
            raise BackendRefused(f"{self._access.shown}: {doing}: {error}") from error
        except BaseException:
            await self.drop(connection)
            raise
        await self._keep(connection)
        self._check_known(server, doing)
        return answer

    def _check_known(self, server: Server, doing: str) -> None:
        """It may take itself for the primary still."""
        if not self.known.is_known(server):
            raise BackendUnavailable(f"{self._access.shown}: {doing}: another primary was met meanwhile")

    async def _keep(self, connection: Any) -> None:
        server = self._open.get(connection)
        if self._closed or server is None or not self.known.is_known(server) or len(self._idle) >= _AT_ONCE:
            await self.drop(connection)
        else:
            self._idle.append(connection)

    async def drop(self, connection: Any) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        await super().drop(connection)

    async def _leave(self, server: Server | None) -> None:
        """It is not the primary any more: what leads to it is not asked again."""
        for connection, its in list(self._open.items()):
            if its and server and its.identity == server.identity and connection not in self._busy:
                await self.drop(connection)

    async def _script(self, connection: Any, server: Server, script: Script, *arguments: str | bytes) -> Any:
        given = self._prefix, *arguments, server.identity[1]
        try:
            return await self._exchange(connection, "EVALSHA", script.sha, 0, *given)
        except self._library.exceptions.NoScriptError:
            return await self._exchange(connection, "EVAL", script.text, 0, *given)

    async def _wait_for_replicas(self, connection: Any, server: Server) -> None:
        # Not all that is waited for was written on this connection, or now.
        await self._script(connection, server, MARK)
        written = await self._exchange(connection, "WAIT", self._replicas, int(self._limit * 500))
        if written < self._replicas:
            raise BackendUnavailable(
                f"{self._access.shown}: {written} of {self._replicas} replicas have the change (redis.wait_replicas)"
            )

    async def _wait_for_locks(self, connection: Any, server: Server, locks: Locks) -> None:
        """Nobody leads on what could be lost with this server alone, whoever it was told by."""
        held = {name: (server.identity, *found) for name, found in locks.items() if found is not None}
        if any(self._copied.get(name) != found for name, found in held.items()):
            await self._wait_for_replicas(connection, server)
        for name in locks:
            self._copied.pop(name, None)
        self._copied.update(held)

    async def _drop_idle(self) -> None:
        """After a request that got no answer: those that wait have ended with it, most likely, and each would cost a
        request more."""
        idle, self._idle = self._idle, []
        await self._drop_all(idle)
