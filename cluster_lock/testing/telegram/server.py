"""The HTTP side: sockets, connections that end, and answers that find nobody.

aiohttp's low-level server, because it says at once when a connection is lost; handlers are not cancelled then
(handler_cancellation=False): as in HttpConnection.h:40-43 a hangup ends the connection, never the parked query.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from .answers import Answer
from .history import End, Poll

SHUTDOWN_TIMEOUT = 1.0  # seconds for handlers that still run; by then everything that is held was answered


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and its connection."""

    request: web.BaseRequest
    poll: Poll | None = None
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the connection is lost, or when the server stops: what waits for nothing else waits for this."""

    def set_over(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Site(Protocol):
    """What stands behind the sockets."""

    async def answer(self, exchange: Exchange) -> Answer | None:
        """The answer, or None to drop the connection."""
        ...

    def sent(self, exchange: Exchange, answer: Answer) -> None:
        """`answer` was written to a connection that was still open."""
        ...

    def ended(self, exchange: Exchange, end: End) -> None:
        """The exchange ended without an answer that anybody got."""
        ...


class HttpServer:
    """Listens on one address and lets `site` answer."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: dict[web.RequestHandler, Exchange] = {}
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that it became. OSError when the address cannot be had."""
        runner = web.ServerRunner(_Server(self._handle, self._connection_lost), shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        for exchange in list(self._exchanges.values()):
            exchange.set_over()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request)
        self._exchanges[request.protocol] = exchange
        try:
            answer = await self._site.answer(exchange)
            response = web.Response() if answer is None else _response(answer)
            if answer is None:
                if request.transport is not None:
                    request.transport.abort()
                self._site.ended(exchange, "dropped")
            elif await _write(response, request):
                self._site.sent(exchange, answer)
            else:
                self._site.ended(exchange, "disconnected")
            return response
        finally:
            if self._exchanges.get(request.protocol) is exchange:
                del self._exchanges[request.protocol]

    def _connection_lost(self, connection: web.RequestHandler) -> None:
        exchange = self._exchanges.pop(connection, None)
        if exchange is not None:
            exchange.set_over()
            self._site.ended(exchange, "disconnected")


class _Server(web.Server):
    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        on_lost: Callable[[web.RequestHandler], None],
    ) -> None:
        super().__init__(handler, handler_cancellation=False, access_log=None)
        self._on_lost = on_lost

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._on_lost(handler)
        super().connection_lost(handler, exc)


async def _write(response: web.Response, request: web.BaseRequest) -> bool:
    """Write it here and not after the handler, to know whether there was still a connection to write to."""
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        return False
    return True


def _response(answer: Answer) -> web.Response:
    headers = {"Retry-After": str(answer.retry_after)} if answer.retry_after else None
    return web.Response(
        status=answer.status, body=answer.text.encode(), content_type=answer.content_type, headers=headers
    )


async def arguments_of(request: web.BaseRequest) -> Mapping[str, str]:
    """The arguments from the query string and the body, in whichever of the four forms; the query string wins."""
    arguments: dict[str, str] = {}
    if request.content_type == "application/json":
        arguments.update(await _json_arguments(request))
    elif request.can_read_body:
        for name, value in (await request.post()).items():
            arguments.setdefault(name, value if isinstance(value, str) else "")
    arguments.update(request.query)
    return arguments


async def _json_arguments(request: web.BaseRequest) -> Mapping[str, str]:
    try:
        body: Any = json.loads(await request.read())
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
