"""Connections to the primary: one for each request that is under way, kept for the next one.

A request that did not come to its end takes its connection along: the next one would read its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError, PermissionRefused

from .address import RedisAccess
from .scripts import PRIMARY_FOR, Script
from .server import KnownServer, Server

_MAY_PASS = ("MISCONF", "OOM", "NOREPLICAS", "LOADING", "BUSY", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN")
"""What an error answer begins with that says nothing of the request: the server takes no writes now."""
_NOT_LET_IN = ("NOAUTH", "WRONGPASS", "invalid password")
_MUST_NOT = ("NOPERM", "No permissions", "executing the script can't")
_IN_SCRIPT = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.?")
"""Where in a script it happened: of no use to its reader."""


class RedisLink:
    """`limit`: seconds that one request may take, with all that it needs."""

    def __init__(self, library: Any, access: RedisAccess, prefix: str, limit: float, replicas: int = 0) -> None:
        self._library, self._access, self._limit, self._replicas = library, access, limit, replicas
        self._prefix = prefix
        self._open: set[Any] = set()
        """Each connection that was begun and not dropped: what `close` has to end."""
        self._idle: list[Any] = []
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
        self._idle.clear()
        leaving = list(self._open)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limit / 2):
                    await asyncio.gather(*(one.disconnect() for one in leaving), return_exceptions=True)
        finally:
            await self._drop_all(leaving)

    async def run(self, script: Script, *arguments: str | bytes, before: Callable[[], None] | None = None) -> Any:
        """What the script answers. `before`: asked when the server is known and nothing is sent yet; what it raises is
        raised. Enough replicas must have the change, too, where that was asked for."""

        async def exchange(connection: Any) -> Any:
            if before is not None:
                before()
            try:
                answer = await self._exchange(connection, "EVALSHA", script.sha, 0, *arguments)
            except self._library.exceptions.NoScriptError:
                answer = await self._exchange(connection, "EVAL", script.text, 0, *arguments)
            if before is not None and self._replicas:
                await self._wait_for_replicas(connection)
            return answer

        return await self._bounded(exchange, script.name)

    async def ask(self, *command: str | bytes | int) -> Any:
        """What the server answers to a command."""
        return await self._bounded(lambda connection: self._exchange(connection, *command), str(command[0]))

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
        self.known.met(server)
        self.server = server
        return connection

    async def drop(self, connection: Any) -> None:
        """Close it, whatever it is doing."""
        self._open.discard(connection)
        with contextlib.suppress(Exception):  # it may be half made; closing is all that is wanted
            await connection.disconnect(nowait=True)

    async def send(self, connection: Any, *command: Any) -> None:
        """Raises BackendUnavailable if `close` took the connection away: the library would make it again by itself, to
        whatever server is there now, and nobody would end it."""
        self._check_open()
        try:
            await connection.send_command(*command)
        except AttributeError as error:
            # asyncio's writelines() of Python 3.12.1 and 3.13.0, on a connection that was reset while it was idle.
            raise self._library.exceptions.ConnectionError("the connection was reset") from error

    # Below one request.

    async def _bounded(self, exchange: Any, doing: str) -> Any:
        self._access.look_for_new_files()
        try:
            async with asyncio.timeout(self._limit):
                connection = self._idle.pop() if self._idle else await self.connect()
                return await self._with(connection, exchange, doing)
        except TimeoutError as error:
            await self._drop_idle()
            raise BackendUnavailable(f"{self._access.shown} did not answer in time ({doing})") from error
        except asyncio.CancelledError:  # most likely by a limit of who asks
            await self._drop_idle()
            raise

    async def _with(self, connection: Any, exchange: Any, doing: str) -> Any:
        errors = self._library.exceptions
        try:
            answer = await exchange(connection)
        except ClusterLockError:
            await self._keep(connection)
            raise
        except errors.ResponseError as error:
            if isinstance(error, errors.ReadOnlyError):  # it was the primary once: the next one is to be found
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
        return answer

    async def _keep(self, connection: Any) -> None:
        if self._closed:
            await self.drop(connection)
        else:
            self._idle.append(connection)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendUnavailable(f"{self._access.shown}: the driver is closed")

    async def _exchange(self, connection: Any, *command: Any) -> Any:
        await self.send(connection, *command)
        # What becomes of the connection is decided above, in one place.
        return await connection.read_response(disconnect_on_error=False)

    async def _wait_for_replicas(self, connection: Any) -> None:
        written = await self._exchange(connection, "WAIT", self._replicas, int(self._limit * 500))
        if written < self._replicas:
            raise BackendUnavailable(
                f"{self._access.shown}: {written} of {self._replicas} replicas have the change (redis.wait_replicas)"
            )

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
                _refuse_untrusted(sentinel, error)
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
        try:
            await connection.connect()
            return await self._exchange(connection, "SENTINEL", "get-master-addr-by-name", self._access.service)
        finally:
            await self.drop(connection)

    async def _connected(self, address: Any) -> tuple[Any, Server]:
        errors = self._library.exceptions
        connection = self._access.connection(address, self._library)
        self._open.add(connection)
        try:
            async with asyncio.timeout(self._limit / (1 + len(self._access.addresses))):
                await connection.connect()
                server = Server.of(await self._exchange(connection, "INFO"))
                if server.writes and server.promoted and not self.known.is_known(server):
                    server = replace(server, age=await self._primary_for(connection, server))
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
            _refuse_untrusted(address, error)
            raise BackendUnavailable(f"{address}: {error}") from error
        except BaseException:
            await self.drop(connection)
            raise
        return connection, server

    async def _primary_for(self, connection: Any, server: Server) -> float:
        """Seconds since somebody met it as the primary that it is."""
        who = ":".join(server.identity)
        return float(await self._exchange(connection, "EVAL", PRIMARY_FOR.text, 0, self._prefix, who))

    async def _drop_idle(self) -> None:
        """After a request that got no answer: those that wait have ended with it, most likely, and each would cost a
        request more."""
        idle, self._idle = self._idle, []
        await self._drop_all(idle)

    async def _drop_all(self, connections: Iterable[Any]) -> None:
        for connection in connections:
            await self.drop(connection)

    def mapped(self, error: Exception, doing: str) -> ClusterLockError:
        """What an error of the client library means."""
        errors, text = self._library.exceptions, _IN_SCRIPT.sub("", str(error))
        said = f"{self._access.shown}: {doing}: {text}"
        if isinstance(error, errors.NoPermissionError) or any(word in text for word in _MUST_NOT):
            return PermissionRefused(f"{said}; what it needs: docs/redis.md#rights")
        if isinstance(error, errors.AuthenticationError) or any(word in text for word in _NOT_LET_IN):
            return PermissionRefused(said)
        passing = (
            OSError,
            errors.ConnectionError,
            errors.TimeoutError,
            errors.ReadOnlyError,
            errors.OutOfMemoryError,
        )
        if isinstance(error, passing) or text.startswith(_MAY_PASS):
            return BackendUnavailable(said)
        return BackendRefused(said)


def _refuse_untrusted(address: Any, error: Exception) -> None:
    """Who cannot show that it is the server is told nothing, and no other one is asked in its place."""
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        raise BackendRefused(f"{address}: the server's certificate is not trusted: {error.__context__}") from error
