"""HTTP to a Consul agent, under the client library: one aiohttp session, a deadline for every request, other agents
when one does not answer.

The libraries' own asyncio transports are not used: python-consul2's ignores CA and client certificate and opens a
connection for each call, py-consul's has 100 connections for everything, so that waiting queries starve renewals.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused

from ._consul_words import Answered, Response, brief

AT_ONCE = 50
"""Requests under way at a time. An agent cuts clients with more than 200 connections, renewals with them
(`http_max_conns_per_client`)."""
_FOR_RENEWALS = 2
_CLOSE_WITHIN = 1.0

# What an agent says that is itself alive and has no servers behind it: another agent may have.
_CUT_OFF = (
    "No cluster leader",
    "No known Consul servers",
    "leadership lost",
    "not the leader",
    "rpc error getting client",
)
_REFUSES_OURS = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA)")

Lane = Literal["ordinary", "renewal", "waiting"]
"""A renewal never stands in line behind other requests, and a waiting query keeps nobody out."""

_Problem = TypeVar("_Problem", bound=Exception)


@dataclass(frozen=True, slots=True)
class _Limit:
    ends: float
    lane: Lane


# The libraries' methods have no argument for it, so it travels beside the call.
_limit: ContextVar[_Limit] = ContextVar("cluster_lock_consul_limit")


class _Response(aiohttp.ClientResponse):
    """Ends a PUT whose connection broke before the answer came. aiohttp would send it again, silently, when it had
    used the connection before; and it may have been applied."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        try:
            return await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            if self.method == "GET":
                raise
            raise aiohttp.ClientConnectionError(f"no answer came: {error}") from error


class Transport:
    """What `consul.base.Consul` calls `http`. Make it inside the running loop.

    Each call runs under `limited()`, which says how long it may take in all: with several agents, the next one is asked
    inside the same time, and the last one that answered is asked first. A request may therefore be applied twice.
    """

    def __init__(
        self, urls: Sequence[str], context: ssl.SSLContext | None, misread: tuple[type[Exception], ...] = ()
    ) -> None:
        self._urls = tuple(urls)
        self._current = 0
        self._misread: tuple[type[Exception], ...] = (ValueError, LookupError, TypeError, AttributeError, *misread)
        self._lines: dict[Lane, asyncio.Semaphore] = {
            "ordinary": asyncio.Semaphore(AT_ONCE - _FOR_RENEWALS),
            "renewal": asyncio.Semaphore(_FOR_RENEWALS),
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context if context is not None else True),
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none: ours is the only one
            # Agents compress by default: on the way to the next process that only costs both of us.
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):  # connections that do not close in time are dropped by the loop
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._session.close()

    @contextlib.contextmanager
    def limited(self, seconds: float, lane: Lane) -> Iterator[None]:
        """All calls inside the block end within `seconds`, taken together."""
        token = _limit.set(_Limit(clock.now() + seconds, lane))
        try:
            yield
        finally:
            _limit.reset(token)

    # What the libraries call.

    async def get(self, callback: Callable[[Any], Any], path: str, *args: Any, **kwargs: Any) -> Any:
        return await self._call(callback, "GET", path, *args, **kwargs)

    async def put(self, callback: Callable[[Any], Any], path: str, *args: Any, **kwargs: Any) -> Any:
        return await self._call(callback, "PUT", path, *args, **kwargs)

    async def _call(
        self,
        callback: Callable[[Any], Any],
        method: str,
        path: str,
        params: Sequence[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        data: str | bytes = b"",
    ) -> Any:
        target = _quoted(path, tuple(params or ()))
        body = data.encode() if isinstance(data, str) else data
        limit = _limit.get()
        line = await self._stand_in_line(limit)
        try:
            url, response = await self._ask_agents(limit, method, target, headers, body)
        finally:
            if line is not None:
                line.release()
        if response.code != 200 and not (response.code == 404 and "X-Consul-Index" in response.headers):
            raise Answered(url, path, response)
        try:
            return callback(response)
        except self._misread as error:
            raise BackendUnavailable(f"{url} answered what is no answer of Consul: {brief(response.body)}") from error

    async def _stand_in_line(self, limit: _Limit) -> asyncio.Semaphore | None:
        """The line to be released afterwards."""
        line = self._lines.get(limit.lane)
        if line is None:
            return None
        if not line.locked():  # almost always, and then no timer is needed
            await line.acquire()
            return line
        try:
            async with asyncio.timeout(limit.ends - clock.now()):
                await line.acquire()
        except TimeoutError as error:
            raise BackendUnavailable(f"{self._urls[self._current]}: too many requests were waiting") from error
        return line

    async def _ask_agents(
        self, limit: _Limit, method: str, path: str, headers: Mapping[str, str] | None, body: bytes
    ) -> tuple[str, Response]:
        first, count = self._current, len(self._urls)
        problems: list[BackendUnavailable | BackendRefused] = []
        for attempt in range(count):
            which = (first + attempt) % count
            url, left = self._urls[which], limit.ends - clock.now()
            if problems and left <= 0:
                break
            # A query that waits may be silent until its end, so time is kept for the others only where it must answer.
            share = left if limit.lane == "waiting" else left / (count - attempt)
            try:
                async with asyncio.timeout(share):
                    response = await self._send(url, method, path, headers, body)
            except TimeoutError as error:
                problems.append(_because(BackendUnavailable(f"{url} did not answer within {share:.1f} s"), error))
            except (aiohttp.ClientError, OSError) as error:
                problems.append(_because(_unreachable(url, error), error))
            else:
                if not _is_cut_off(response) or attempt == count - 1:
                    self._current = which
                    return url, response
                problems.append(BackendUnavailable(f"{url}: {brief(response.body)}"))
            if self._current == which:
                self._current = (which + 1) % count
        raise _all_in_one(problems)

    async def _send(self, url: str, method: str, path: str, headers: Mapping[str, str] | None, body: bytes) -> Response:
        if self._session.closed:
            raise aiohttp.ClientConnectionError("the driver is closed")
        # Never follow a redirect: the token would go along. `encoded`: the path is quoted, "//" and all.
        async with self._session.request(
            method, URL(url + path, encoded=True), headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            return Response(answer.status, answer.headers, content.decode(errors="replace"), content)


@lru_cache(maxsize=512)
def _quoted(path: str, params: tuple[tuple[str, Any], ...]) -> str:
    quoted = quote(path, safe="/:")
    return f"{quoted}?{urlencode(params)}" if params else quoted


def _is_cut_off(response: Response) -> bool:
    return response.code in (429, 502, 503, 504) or (
        response.code == 500 and any(text in response.body for text in _CUT_OFF)
    )


def _unreachable(url: str, error: Exception) -> BackendUnavailable | BackendRefused:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return BackendRefused(f"{url}: the server's certificate is not trusted: {error.certificate_error}")
    # With TLS 1.3 the handshake is over before the server looks at our certificate: its refusal comes as a read error.
    if _REFUSES_OURS.search(str(error)):
        return PermissionRefused(f"{url} does not accept our client certificate, or wants one: {error}")
    return BackendUnavailable(f"{url} is not reachable: {error or type(error).__name__}")


def _because(problem: _Problem, cause: Exception) -> _Problem:
    problem.__cause__ = cause
    return problem


def _all_in_one(problems: Sequence[BackendUnavailable | BackendRefused]) -> BackendUnavailable | BackendRefused:
    """One of several agents that may answer later is enough to try again; else the first refusal says why not."""
    waiting = [problem for problem in problems if isinstance(problem, BackendUnavailable)]
    if len(problems) == 1:
        return problems[0]
    kind = BackendUnavailable if waiting else type(problems[0])
    return _because(kind("; ".join(map(str, problems))), problems[-1])
