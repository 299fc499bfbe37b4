"""Servers that answer and refuse: what a learner of etcd 3.6, an agent without its servers or an ingress says. And one
that answers nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from cluster_lock.drivers.etcd.library import load


class RefusingEtcd(list[str]):
    """The names of the gRPC methods that it was asked for, each of which it answered with `code` and `words`."""

    url = ""


@asynccontextmanager
async def refusing_etcd(code: str, words: str) -> AsyncIterator[RefusingEtcd]:
    grpc = load().grpc
    asked = RefusingEtcd()

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, details: Any) -> Any:
            asked.append(details.method.rpartition("/")[2])

            async def refuse(request: Any, context: Any) -> None:
                await context.abort(grpc.StatusCode[code], words)

            if asked[-1] in ("LeaseKeepAlive", "Watch"):
                return grpc.stream_stream_rpc_method_handler(refuse)
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    asked.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield asked
    finally:
        await server.stop(None)


@asynccontextmanager
async def answering_etcd(
    body: bytes, pages: Mapping[str, bytes] | None = None, *, compressed: bool = False
) -> AsyncIterator[str]:
    """The address of a gRPC server that answers each request with these bytes. `pages`: other ones, by method."""
    grpc = load().grpc

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, details: Any) -> Any:
            method = details.method.rpartition("/")[2]
            content = (pages or {}).get(method, body)

            async def answer(request: Any, context: Any) -> bytes:
                return content

            async def answers(requests: Any, context: Any) -> AsyncIterator[bytes]:
                await anext(aiter(requests))
                yield content

            if method in ("LeaseKeepAlive", "Watch"):
                return grpc.stream_stream_rpc_method_handler(answers)
            return grpc.unary_unary_rpc_method_handler(answer)

    how = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),), compression=how)
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


class RefusingAgent:
    """An HTTP server that gives each request the same answer; but it tells its cluster as `peers`, if that is given."""

    def __init__(self, status: str, body: str, peers: str | None = None) -> None:
        self._status, self._body, self._peers = status, body, peers
        self.asked: list[str] = []
        """The request lines but for the questions of the cluster: who its servers are, and whether it knows a
        session."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(lengths[0].partition(":")[2]) if lengths else 0)
                status, body = self._status, self._body
                if "/v1/status/peers" not in head:
                    if "/v1/session/info/" not in head:
                        self.asked.append(head.split("\r\n")[0])
                elif self._peers is not None:
                    status, body = "200 OK", self._peers
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()
