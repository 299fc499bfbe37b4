"""A TCP proxy between a client and a real server, for what a network does to requests.

    async with Proxy(server.host, server.http_port) as proxy:
        client = connect(proxy.port)
        held = proxy.hold(b"PUT /v1/txn")     # the next such request ...
        await held.caught.wait()
        reply = await held.deliver()          # ... arrives now, also when its client has long given up

It matches bytes, so over TLS only the empty match (any bytes) works; and `capture` needs HTTP/1, where a request means
the same on another connection (HTTP/2 compresses its headers against the connection's past).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from cluster_lock.aio import end

_CHUNK = 65536
_REPLY_WITHIN = 10.0


class Rule:
    """Something to be done once, to the next request that contains `match`; `caught` is set when it came by."""

    def __init__(self, match: bytes) -> None:
        self.match = match
        self.caught = asyncio.Event()


class Held(Rule):
    """A request that is on its way: it and what follows on its connection arrive at `deliver()`."""

    def __init__(self, match: bytes) -> None:
        super().__init__(match)
        self.bytes = b""
        self.delivered = False
        self._connection: _Connection | None = None

    def take(self, connection: _Connection, chunk: bytes) -> None:
        self._connection = connection
        self.bytes += chunk
        self.caught.set()

    async def deliver(self) -> bytes:
        """Let it arrive; the first bytes of the server's reply, which its client gets too if it still listens."""
        assert self._connection, "nothing was caught yet"
        self.delivered = True
        return await self._connection.deliver(self.bytes)


class Captured(Rule):
    """A request that went its way and of which a copy was kept."""

    def __init__(self, match: bytes, connect: Callable[[], Awaitable[_Streams]]) -> None:
        super().__init__(match)
        self.bytes = b""
        self.complete = False
        self._connect = connect

    async def replay(self) -> bytes:
        """Send the copy on a connection of its own; the first bytes of the reply."""
        assert self.bytes, "nothing was caught yet"
        reader, writer = await self._connect()
        writer.write(self.bytes)
        try:
            async with asyncio.timeout(_REPLY_WITHIN):
                return await reader.read(_CHUNK)
        finally:
            writer.close()


class Lost(Rule):
    """A request that arrives and whose reply does not: the connection is cut when the reply comes, or hangs."""

    def __init__(self, match: bytes, hang: bool) -> None:
        super().__init__(match)
        self.hang = hang
        self.answered = asyncio.Event()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on a port of its own and passes everything on, apart from what it is told to do."""

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.delay = 0.0
        """Seconds by which each chunk is late, each way."""
        self.rules: list[Rule] = []
        self._target = (target_host, target_port)
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._server: asyncio.Server | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def black_hole(self) -> None:
        """Nothing passes any more, and nobody is told; new connections are accepted and hang."""
        self.flowing.clear()

    def heal(self) -> None:
        """What a black hole kept arrives now, as TCP would send it again after a partition."""
        self.flowing.set()

    def cut(self) -> None:
        """Reset every open connection on both sides; new ones work."""
        for connection in self._connections.values():
            connection.reset()

    async def refuse(self) -> None:
        """Cut, and refuse new connections until `accept()`."""
        if self._server:
            self._server.close()
        self.cut()
        if self._connections:
            await asyncio.wait(list(self._connections))

    async def accept(self) -> None:
        """Listen (again), on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def redirect(self, target_host: str, target_port: int) -> None:
        """Let new connections lead there."""
        self._target = (target_host, target_port)

    def hold(self, match: bytes = b"") -> Held:
        """Keep the next request with these bytes."""
        held = Held(match)
        self.rules.append(held)
        return held

    def capture(self, match: bytes = b"") -> Captured:
        """Let the next request with these bytes pass and keep a copy of it, for `replay()`."""
        captured = Captured(match, self.connect)
        self.rules.append(captured)
        return captured

    def drop_reply(self, match: bytes = b"", *, hang: bool = False) -> Lost:
        """Let the next request with these bytes pass and drop its reply."""
        lost = Lost(match, hang)
        self.rules.append(lost)
        return lost

    def rule_for(self, chunk: bytes) -> Rule | None:
        for rule in self.rules:
            if rule.match in chunk:
                self.rules.remove(rule)
                return rule
        return None

    async def connect(self) -> _Streams:
        return await asyncio.open_connection(*self._target)

    # Not a coroutine: asyncio's own task for one logs an error when it is cancelled, as cut() does.
    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, (reader, writer))
        connection.task = asyncio.create_task(connection.run())
        self._connections[connection.task] = connection
        connection.task.add_done_callback(self._connections.pop)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.heal()
        await self.refuse()


class _Connection:
    """One client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, client: _Streams) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._held: Held | None = None
        self._captured: Captured | None = None
        self._lost: Lost | None = None
        self._reply: asyncio.Future[bytes] | None = None
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            await self._proxy.flowing.wait()
            server_reader, self._server = await self._proxy.connect()
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._to_server(self._server))
                pumps.create_task(self._to_client(server_reader))
        except* (OSError, _Over):
            pass  # one side is gone, so the other one goes too: what a wire does
        finally:
            for writer in (self._client, self._server):
                if writer is not None:
                    writer.close()

    async def _to_server(self, server: asyncio.StreamWriter) -> None:
        async for chunk in self._arriving(self._client_reader):
            await self._proxy.flowing.wait()
            self._apply(chunk)
            if self._captured and not self._captured.complete:
                self._captured.bytes += chunk
            if self._held and not self._held.delivered:
                self._held.take(self, chunk)
            else:
                server.write(chunk)
                await server.drain()
        await self._proxy.flowing.wait()
        # A held request, and its reply, outlive their client: then only the server's end, or cut(), is the end.
        if not self._held:
            raise _Over

    def _apply(self, chunk: bytes) -> None:
        match self._proxy.rule_for(chunk):
            case Held() as held:
                self._held = held
            case Captured() as captured:
                self._captured = captured
                captured.caught.set()
            case Lost() as lost:
                self._lost = lost
                lost.caught.set()

    async def _to_client(self, server_reader: asyncio.StreamReader) -> None:
        async for chunk in self._arriving(server_reader):
            await self._proxy.flowing.wait()
            if self._captured:
                self._captured.complete = True
            if self._reply and not self._reply.done():
                self._reply.set_result(chunk)
            if self._lost:
                self._lost.answered.set()
                if self._lost.hang:
                    continue
                self.reset()
                return
            if not self._client.is_closing():
                self._client.write(chunk)
                with contextlib.suppress(ConnectionError):  # a client that hung up while its request was held
                    await self._client.drain()
        await self._proxy.flowing.wait()
        raise _Over

    async def deliver(self, held: bytes) -> bytes:
        assert self._server
        self._reply = asyncio.get_running_loop().create_future()
        self._server.write(held)
        async with asyncio.timeout(_REPLY_WITHIN):
            return await self._reply

    def reset(self) -> None:
        """End both sides with RST."""
        for writer in (self._client, self._server):
            if writer is not None and not writer.is_closing():
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        if self.task:
            self.task.cancel()

    async def _arriving(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """The chunks until the end, each `delay` after it was sent: one does not wait for another, as on a long way."""
        loop = asyncio.get_running_loop()
        on_the_way: deque[tuple[float, bytes]] = deque()
        reading: asyncio.Task[bytes] | None = asyncio.ensure_future(reader.read(_CHUNK))
        try:
            while reading or on_the_way:
                left = max(0.0, on_the_way[0][0] - loop.time()) if on_the_way else None
                if reading:
                    await asyncio.wait((reading,), timeout=left)
                elif left:
                    await asyncio.sleep(left)
                if reading and reading.done():
                    chunk = reading.result()
                    reading = asyncio.ensure_future(reader.read(_CHUNK)) if chunk else None
                    if chunk:
                        on_the_way.append((loop.time() + self._proxy.delay, chunk))
                while on_the_way and on_the_way[0][0] <= loop.time():
                    yield on_the_way.popleft()[1]
        finally:
            if reading:
                await end([reading])
                if not reading.cancelled():
                    reading.exception()  # the connection broke: who reads on is told by what was yielded


class _Over(Exception):
    """One side ended."""
