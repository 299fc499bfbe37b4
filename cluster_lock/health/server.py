"""The pages over HTTP: everything can be read and nothing can be done."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cluster_lock.aio import end, finish
from cluster_lock.errors import ConfigError
from cluster_lock.host.listen_address import ListenAddress

from .beside import beside
from .board import Board
from .connections import ACCEPTED_AT_ONCE, Connections
from .document import health
from .events import Events
from .hosts import Hosts
from .page import page, page_policy
from .verdict import why_not_alive, why_not_ready

log = logging.getLogger("cluster_lock.health")

LOOK_EVERY = 1.0
"""Seconds between two looks at who leads."""
TRIES = 100
"""Ports that are tried from the default one on."""
IDLE = 30.0
"""Seconds for which a connection may be kept between two requests."""
WAITING = 1024
"""Connections that the kernel keeps for us to accept."""
NOT_OURS = (
    "this server does not have that name: ask it by a number or as localhost, or set health (CLUSTER_LOCK_HEALTH) to"
    " that name and the port"
)
NOTHING = "default-src 'none'; frame-ancestors 'none'"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HealthServer:
    """Serves `board` from `start` to `close`; use as an async context manager.

    `start` raises ConfigError if the address cannot be had. An address that `may_move` takes the next free port.
    """

    def __init__(self, board: Board, address: ListenAddress) -> None:
        self._board, self._address = board, address
        self._hosts = Hosts(address.host)
        self._events = Events(board)
        self._scrape: Callable[[str], tuple[bytes, str]] | None = None
        self._runner = web.AppRunner(
            self._application(), access_log=None, logger=_http_log(), keepalive_timeout=IDLE, shutdown_timeout=1.0
        )
        self._connections = Connections(self._protocol)
        self._listener: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def address(self) -> ListenAddress:
        """Where it really listens, once it has started."""
        return self._address

    @property
    def url(self) -> str:
        return f"http://{self._address.text}"

    async def start(self) -> None:
        bound = _bound(self._address)
        self._address = ListenAddress(self._address.host, bound.getsockname()[1])
        await self._runner.setup()
        self._listener = await asyncio.get_running_loop().create_server(
            self._connections, sock=bound, backlog=ACCEPTED_AT_ONCE
        )
        bound.listen(WAITING)  # to asyncio the backlog is both: how many it accepts at once, and how many may wait
        self._looking = beside(self._look_around())
        log.info("health page: %s/", self.url)

    async def close(self) -> None:
        """Bounded: about a second."""
        await finish(self._close())

    async def _close(self) -> None:
        self._events.close()
        if self._looking is not None:
            await end([self._looking])
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        return asyncio.Protocol() if server is None else server()

    async def _look_around(self) -> None:
        while True:
            self._board.look_around()
            await asyncio.sleep(LOOK_EVERY)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer], client_max_size=1)
        application.router.add_get("/", self._page)
        application.router.add_get("/health", self._health)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/events", self._events.serve)
        application.on_response_prepare.append(_with_safe_headers)
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._connections.serving(request.transport, stream=request.path == "/events"):
            return await self._guarded(request, handler)

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="nothing can be changed here\n")
        if not self._hosts.allow(request.headers.get("Host")):
            return web.Response(status=421, text=f"{NOT_OURS}\n")
        # What a browser fetches for a page of somebody else; only following a link to the page is all right.
        if request.path != "/" and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return web.Response(status=403, text="not for other sites\n")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=f"{error.reason.lower()}\n")

    async def _page(self, request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": page_policy()}
        return web.Response(body=page(), content_type="text/html", charset="utf-8", headers=headers)

    async def _health(self, request: web.Request) -> web.Response:
        content = health(self._board)
        return _json(content, status=503 if content["status"] in ("failing", "stuck") else 200)

    async def _livez(self, request: web.Request) -> web.Response:
        return _probe(why_not_alive(self._board))

    async def _readyz(self, request: web.Request) -> web.Response:
        return _probe(why_not_ready(self._board))

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._scrape is None:
            try:
                from .metrics import scraper
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != "prometheus_client":
                    raise
                text = "prometheus-client is not installed: pip install 'cluster-lock[health]'\n"
                return web.Response(status=501, text=text)
            self._scrape = scraper(self._board)
        body, content_type = self._scrape(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _http_log() -> logging.Logger:
    """aiohttp logs each request that is no HTTP as an error with a traceback; anybody who scans ports is none of
    ours."""
    found = logging.getLogger("cluster_lock.health.http")
    found.addFilter(_is_ours)
    return found


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _json(content: dict[str, Any], status: int) -> web.Response:
    return web.Response(
        status=status, text=json.dumps(content, ensure_ascii=False) + "\n", content_type="application/json"
    )


def _probe(reasons: list[str]) -> web.Response:
    return web.Response(status=503 if reasons else 200, text="\n".join(reasons or ["ok"]) + "\n")


async def _with_safe_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Content-Security-Policy", NOTHING)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Server"] = "cluster-lock"


def _bound(wanted: ListenAddress) -> socket.socket:
    """A socket that is bound to the address, or to the next free port. Raises ConfigError."""
    # If all of them are taken, any will do: it is nobody's wish in particular, and no reason not to work.
    ports = [*range(wanted.port, min(wanted.port + TRIES, 65536)), 0] if wanted.may_move else [wanted.port]
    problem: OSError | None = None
    for port in ports:
        try:
            return _listening_socket(wanted.host, port)
        except OSError as error:
            problem = error
            if not _is_taken(error):
                break
    taken = problem is not None and _is_taken(problem)
    what = "is taken by another program" if taken else f"cannot be had: {problem and problem.strerror}"
    raise ConfigError([f"health: {wanted.text} {what}; set another address, or health: off"]) from problem


def _listening_socket(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    with contextlib.ExitStack() as undo:
        undo.callback(found.close)
        if sys.platform == "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Else a restart would have to wait for old connections; it lets nobody take a port that is listened on.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(WAITING)
        undo.pop_all()
    return found


def _is_taken(error: OSError) -> bool:
    # WSAEADDRINUSE, and WSAEACCES for a port that somebody has for himself.
    return error.errno in (errno.EADDRINUSE, 10048, 10013)
