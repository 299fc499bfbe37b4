"""What the client library speaks through: a deadline for every request, other agents when one does not serve.

The libraries' own asyncio transports are not used: python-consul2's ignores CA and client certificate and opens a
connection for each call, py-consul's has 100 connections for everything, so that waiting queries starve renewals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused

from .asking import Asking
from .cluster import AgentsCluster
from .http import ConsulUntrusted, Http, Request, unreachable
from .words import Answered, brief, is_denied, is_the_answer, may_pass, understood

AT_ONCE = 50
"""Requests under way at a time. An agent cuts clients with more than 200 connections, renewals with them
(`http_max_conns_per_client`)."""
_FOR_RENEWALS = 2
_CLUSTER_WITHIN = 2.0
"""Seconds for which an agent is waited for that was not asked for its cluster yet, at most."""

Lane = Literal["ordinary", "renewal", "waiting"]
"""A renewal never stands in line behind other requests, and a waiting query keeps nobody out."""

_Problem = TypeVar("_Problem", bound=Exception)


@dataclass(frozen=True, slots=True)
class _Limit:
    ends: float
    lane: Lane


_Trouble = BackendUnavailable | BackendRefused | Answered

# The libraries' methods have no argument for it, so it travels beside the call.
_limit: ContextVar[_Limit] = ContextVar("cluster_lock_consul_limit")


class Transport:
    """What `consul.base.Consul` calls `http`. Make it inside the running loop.

    Each call runs under `limited()`, which says how long it may take in all: with several agents, the next one is asked
    inside the same time, and the last one that answered is asked first. A request may therefore be applied twice. Of
    several agents only those are asked that said within the last ttl that they are of our `cluster`. `files`: for
    https. `datacenter`, `token`: for the question of the cluster.
    """

    def __init__(
        self,
        urls: Sequence[str],
        files: TLSFiles | None,
        cluster: AgentsCluster,
        datacenter: str | None,
        token: str | None,
        misread: tuple[type[Exception], ...] = (),
    ) -> None:
        self._urls = tuple(urls)
        self._current = 0
        self._http = Http(files)
        self._cluster = cluster
        self._asking = Asking(self._http, cluster, urls, datacenter, token)
        self._looked = clock.now()
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._misread: tuple[type[Exception], ...] = (
            *(ValueError, LookupError, TypeError, AttributeError),
            *(RecursionError, ArithmeticError),  # brackets a hundred thousand deep, a number without an end
            *misread,
        )
        self._lines: dict[Lane, asyncio.Semaphore] = {
            "ordinary": asyncio.Semaphore(AT_ONCE - _FOR_RENEWALS),
            "renewal": asyncio.Semaphore(_FOR_RENEWALS),
        }

    async def close(self) -> None:
        if self._looking is not None:
            await end([self._looking])
        await self._http.close()

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
        if any(name.lower() == "token" for name, _ in params or ()):
            raise BackendRefused(
                "the installed Consul library puts the ACL token into the address, which every server on the way logs:"
                " nothing was sent; install another release of it"
            )
        self._now_and_then()
        body = data.encode() if isinstance(data, str) else data
        request = Request(method, path, _quoted(path, tuple(params or ())), headers, body)
        limit = _limit.get()
        line = await self._stand_in_line(limit)
        try:
            return await self._ask_agents(limit, request, callback)
        finally:
            if line is not None:
                line.release()

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

    async def _ask_agents(self, limit: _Limit, request: Request, callback: Callable[[Any], Any]) -> Any:
        """What `callback` makes of the first answer that is one. Raises Answered for one that says no."""
        first, count = self._current, len(self._urls)
        problems: list[_Trouble] = []
        for attempt in range(count):
            which = (first + attempt) % count
            url, left = self._urls[which], limit.ends - clock.now()
            if problems and left <= 0:
                break
            # A query that waits may be silent until its end, so time is kept for the others only where it must answer.
            share = left if limit.lane == "waiting" else left / (count - attempt)
            try:
                async with asyncio.timeout(share):
                    answer = await self._ask(url, request, callback, share)
            except TimeoutError as error:
                problems.append(_because(BackendUnavailable(f"{url} did not answer within {share:.1f} s"), error))
            except (aiohttp.ClientError, OSError) as error:
                problems.append(_because(unreachable(url, error), error))
                if isinstance(problems[-1], ConsulUntrusted):
                    break  # anybody who stands there must not make us show the token elsewhere
            except BackendUnavailable as error:
                problems.append(error)
            except Answered as error:
                if is_the_answer(error):
                    self._current = which
                    raise
                problems.append(error)
            else:
                self._current = which
                return answer
            if self._current == which:
                self._current = (which + 1) % count
        raise _all_in_one(problems)

    async def _ask(self, url: str, request: Request, callback: Callable[[Any], Any], share: float) -> Any:
        if len(self._urls) > 1 and not self._cluster.knows(url):
            async with asyncio.timeout(min(share / 2, _CLUSTER_WITHIN)):
                await self._asking.learn(url)
        response = await self._http.send(url, request)
        if response.code != 200 and not (response.code == 404 and "X-Consul-Index" in response.headers):
            raise Answered(url, request.path, response)
        try:
            return understood(request.path, callback(response))
        except self._misread as error:
            raise BackendUnavailable(f"{url} answered what is no answer of Consul: {brief(response.body)}") from error

    # Certificates and clusters, now and then.

    def _now_and_then(self) -> None:
        """Twice a ttl: are there new certificates, and does any agent belong to another cluster?"""
        if clock.now() - self._looked < max(1.0, self._cluster.ttl / 2):
            return
        self._looked = clock.now()
        self._http.look()
        if self._cluster.ttl and len(self._urls) > 1 and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> dict[str, str]:
        found = await self.ask_clusters()
        if self._cluster.in_doubt:
            with contextlib.suppress(BackendRefused):  # a caller that wants a lease, or renews one, is told
                self._cluster.agree()
        return found

    async def ask_clusters(self, *, again: bool = False) -> dict[str, str]:
        """Ask each agent for its cluster, in a third of the time. By address, what is the matter with those that do not
        serve. `again`: only those that have just told."""
        return await self._asking.learn_all((_limit.get().ends - clock.now()) / 3, again=again)


@lru_cache(maxsize=512)
def _quoted(path: str, params: tuple[tuple[str, Any], ...]) -> str:
    quoted = quote(path, safe="/:")
    return f"{quoted}?{urlencode(params)}" if params else quoted


def _because(problem: _Problem, cause: Exception) -> _Problem:
    problem.__cause__ = cause
    return problem


def _all_in_one(problems: Sequence[_Trouble]) -> _Trouble:
    """Nobody served: a refusal if that is what all of them say, and then the most telling; else the backend is not
    available."""
    if len(problems) == 1:
        return problems[0]
    texts = "; ".join(map(str, problems))
    if any(
        isinstance(each, BackendUnavailable) or (isinstance(each, Answered) and may_pass(each)) for each in problems
    ):
        return _because(BackendUnavailable(texts), problems[-1])
    said = [each for each in problems if isinstance(each, Answered)]
    if said:
        return next(filter(is_denied, said), said[0])
    denied = any(isinstance(each, PermissionRefused) for each in problems)
    return _because(PermissionRefused(texts) if denied else BackendRefused(texts), problems[-1])
