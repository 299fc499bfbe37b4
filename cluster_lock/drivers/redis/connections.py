"""Connections: made to the primary, which is then known, and dropped when it is another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError

from .address import RedisAccess
from .refusals import meaning, refuse_untrusted
from .server import KnownServer, Server


class Connections:
    """All of one driver. `limit`: seconds that one request may take, with all that it needs."""

    def __init__(self, library: Any, access: RedisAccess, limit: float) -> None:
        self._library, self._access, self._limit = library, access, limit
        self._open: dict[Any, Server | None] = {}
        """Each connection that was begun and not dropped, which `close` has to end, and the server as it said it is."""
        self._busy: set[Any] = set()
        """Those that a request is under way on."""
        self._closed = False
        self.known = KnownServer(access.shown)
        self.server: Server | None = None
        """As it was when the last connection was made."""

    @property
    def where(self) -> str:
        """The addresses, for people."""
        return ",".join(map(str, self._access.addresses))

    async def close(self) -> None:
        """Ends every connection. With TLS a goodbye is answered, and who does not wait for it leaves a socket behind
        when the loop ends. Half a request's time is enough for that; asyncio ends what is left 30 s later."""
        self._closed = True
        leaving = list(self._open)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limit / 2):
                    await asyncio.gather(*(one.disconnect() for one in leaving), return_exceptions=True)
        finally:
            await self._drop_all(leaving)

    async def connect(self) -> Any:
        """A new connection to the primary, whose server is then known; who asks for it drops it."""
        self._check_open()
        found: list[tuple[Any, Server]] = []
        problems: list[str] = []
        for address in await self._primaries():
            try:
                found.append(await self._connected(address))
            except BackendUnavailable as error:
                problems.append(str(error))
            except BaseException:
                await self._drop_all([one for one, _ in found])
                raise
        writing = [one for one in found if one[1].writes]
        await self._drop_all([one[0] for one in found if one not in writing[:1]])
        if len({server.identity for _, server in writing}) > 1:
            await self.drop(writing[0][0])
            raise BackendRefused(
                f"{self._access.shown}: {len(writing)} of these are primaries, so that two could lead: name one, or"
                " the Sentinels and the service"
            )
        if not writing:
            replicas = [f"{self._access.shown}: only read-only replicas answer"] if found else []
            raise BackendUnavailable("; ".join([*replicas, *problems]))
        ((connection, server), *_) = writing
        self.server = server
        if self.known.met(server):
            await self._drop_others()
        return connection

    async def drop(self, connection: Any) -> None:
        """Close it, whatever it is doing."""
        self._open.pop(connection, None)
        with contextlib.suppress(Exception):  # it may be half made; closing is all that is wanted
            await connection.disconnect(nowait=True)

    async def send(self, connection: Any, *command: Any) -> None:
        """Raises BackendUnavailable if the connection was taken away: the library would make it again by itself, to
        whatever server is there now, and nobody would end it."""
        self._check_open()
        if connection not in self._open:
            raise BackendUnavailable(f"{self._access.shown}: the connection was closed for another primary")
        try:
            await connection.send_command(*command)
        except AttributeError as error:
            # asyncio's writelines() of Python 3.12.1 and 3.13.0, on a connection that was reset while it was idle.
            raise self._library.exceptions.ConnectionError("the connection was reset") from error

    def mapped(self, error: Exception, doing: str) -> ClusterLockError:
        """What an error of the client library means."""
        return meaning(self._library.exceptions, error, self._access.shown, doing)

    async def _drop_others(self) -> None:
        """What led to the server that we knew before: now what no request is under way on, a subscription too, and the
        rest on its return."""
        others = [one for one, server in self._open.items() if server and not self.known.is_known(server)]
        await self._drop_all([one for one in others if one not in self._busy])

    async def _drop_all(self, connections: Iterable[Any]) -> None:
        for connection in connections:
            await self.drop(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendUnavailable(f"{self._access.shown}: the driver is closed")

    async def _exchange(self, connection: Any, *command: Any) -> Any:
        await self.send(connection, *command)
        # What becomes of the connection is decided by who asks, in one place.
        return await connection.read_response(disconnect_on_error=False)

    # Making a connection.

    async def _primaries(self) -> list[Any]:
        """The addresses at which the primary may be."""
        access = self._access
        if access.service is None:
            return list(access.addresses)
        errors = self._library.exceptions
        problems = []
        for sentinel in access.addresses:
            try:
                async with asyncio.timeout(self._limit / (2 * len(access.addresses))):
                    return [await self._told_by(sentinel)]
            except TimeoutError:
                problems.append(f"{sentinel} did not answer")
            except (errors.RedisError, OSError) as error:
                refuse_untrusted(sentinel, error)
                problems.append(f"{sentinel}: {error}")
        raise BackendUnavailable(f"{access.shown}: no Sentinel tells the primary: {'; '.join(problems)}")

    async def _told_by(self, sentinel: Any) -> Any:
        """Sentinels mostly have no password. One that has takes ours."""
        errors = self._library.exceptions
        try:
            told = await self._asked(sentinel, known=False)
        except (errors.AuthenticationError, errors.NoPermissionError):
            told = await self._asked(sentinel, known=True)
        if not told:
            raise errors.ResponseError(f"there is no service {self._access.service!r}")
        return replace(sentinel, host=told[0].decode(), port=int(told[1]))

    async def _asked(self, sentinel: Any, *, known: bool) -> Any:
        connection = self._access.connection(sentinel, self._library, db=0, known=known)
        self._open[connection] = None
        try:
            await connection.connect()
            return await self._exchange(connection, "SENTINEL", "get-master-addr-by-name", self._access.service)
        finally:
            await self.drop(connection)

    async def _connected(self, address: Any) -> tuple[Any, Server]:
        errors = self._library.exceptions
        connection = self._access.connection(address, self._library)
        self._open[connection] = None
        try:
            async with asyncio.timeout(self._limit / (1 + len(self._access.addresses))):
                await connection.connect()
                server = Server.of(await self._exchange(connection, "INFO"))
            server.check(str(address))
        except ClusterLockError:
            await self.drop(connection)
            raise
        except TimeoutError as error:
            await self.drop(connection)
            raise BackendUnavailable(f"{address} did not answer in time") from error
        except (errors.AuthenticationError, errors.ResponseError) as error:
            await self.drop(connection)
            raise self.mapped(error, f"connect to {address}") from error
        except (errors.RedisError, OSError) as error:
            await self.drop(connection)
            refuse_untrusted(address, error)
            raise BackendUnavailable(f"{address}: {error}") from error
        except BaseException:
            await self.drop(connection)
            raise
        self._open[connection] = server
        return connection, server
