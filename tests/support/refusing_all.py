"""Something that listens where a server was, and refuses everything.

    python -m support.refusing_all etcd|consul HOST PORT

It speaks the protocol of the server. So may a proxy that was set up wrongly, or a server that knows no user."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

DENIED = "Permission denied"


async def refuse_grpc(host: str, port: int) -> None:
    import grpc

    async def refuse(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, DENIED)

    class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            # A stream is refused as an answer that never comes is.
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server(handlers=(Everything(),))
    server.add_insecure_port(f"{host}:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def refuse_http(host: str, port: int) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(DENIED)}\r\n\r\n{DENIED}".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, host, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run({"etcd": refuse_grpc, "consul": refuse_http}[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
