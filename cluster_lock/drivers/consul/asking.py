"""The question which cluster an agent is of, as it goes to the agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from cluster_lock.drivers.shared.one_cluster import OtherCluster
from cluster_lock.errors import BackendUnavailable

from .cluster import AgentsCluster, Told
from .http import Http, Request, unreachable
from .words import Answered, brief


class Asking:
    """What the agents at `urls` tell goes to `cluster`. `token`: shown only to those whose servers are ours."""

    def __init__(
        self, http: Http, cluster: AgentsCluster, urls: Sequence[str], datacenter: str | None, token: str | None
    ) -> None:
        self._http, self._cluster, self._urls = http, cluster, tuple(urls)
        self._dc = {"dc": datacenter} if datacenter else {}
        self._headers = {"X-Consul-Token": token} if token else None

    async def learn(self, url: str) -> None:
        """Ask one agent. Raises OtherCluster; BackendUnavailable, Answered and aiohttp's errors."""
        told = await self._ask(url, self._cluster.session)
        if not told.knows:
            raise BackendUnavailable(_does_not_know(url))
        self._cluster.heard(url, told)

    async def learn_all(self, within: float, *, again: bool = False) -> dict[str, str]:
        """Ask each agent, for so many seconds. By address, what is the matter with those that do not serve. `again`:
        only those that have just told."""
        session = self._cluster.session
        urls = [url for url in self._urls if self._cluster.knows(url) or not again]
        answers = await asyncio.gather(*(self._try(url, session, within) for url in urls))
        found = dict(zip(urls, answers, strict=True))
        problems = {url: each for url, each in found.items() if isinstance(each, str)}
        told = {url: each for url, each in found.items() if isinstance(each, Told)}
        strange = [url for url, each in told.items() if not each.knows]
        if strange and not await self._is_known(told, session, within):
            problems |= {url: _does_not_know(url) for url in strange}
            told = {url: each for url, each in told.items() if each.knows}
        for url, each in sorted(told.items(), key=lambda item: not item[1].knows):  # ours is where our session is
            try:
                self._cluster.heard(url, each)
            except OtherCluster as error:
                problems[url] = str(error)
        return problems

    async def _is_known(self, told: Mapping[str, Told], session: str, within: float) -> bool:
        """Does anybody know our session now? It may have ended between two answers, which then say nothing."""
        witness = next((url for url, each in told.items() if each.session and each.knows), None)
        if witness is None:
            return False
        still = await self._try(witness, session, within)
        return isinstance(still, Told) and still.knows

    async def _try(self, url: str, session: str, within: float) -> Told | str:
        """What it told, or what is the matter with it."""
        try:
            async with asyncio.timeout(within):
                return await self._ask(url, session)
        except TimeoutError:
            return f"{url} did not answer within {within:.1f} s"
        except (aiohttp.ClientError, OSError) as error:
            return str(unreachable(url, error))
        except (BackendUnavailable, Answered) as error:
            return str(error)

    async def _ask(self, url: str, session: str) -> Told:
        servers = frozenset(map(str, await self._get(url, "/v1/status/peers", self._dc, None)))
        if not servers:
            raise BackendUnavailable(f"{url} does not tell the servers of its cluster")
        if not session or not self._cluster.is_ours(Told(servers)):
            return Told(servers)
        path = f"/v1/session/info/{quote(session, safe='')}"
        known = await self._get(url, path, {**self._dc, "consistent": ""}, self._headers)
        return Told(servers, session, bool(known))

    async def _get(self, url: str, path: str, params: dict[str, str], headers: dict[str, str] | None) -> list[Any]:
        target = f"{path}?{urlencode(params)}" if params else path
        response = await self._http.send(url, Request("GET", path, target, headers, b""))
        if response.code != 200:
            raise Answered(url, path, response)
        try:
            content = json.loads(response.body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, list):
            raise BackendUnavailable(f"{url} answered what is no answer of Consul: {brief(response.body)}")
        return content


def _does_not_know(url: str) -> str:
    return f"{url} does not know our session, so it may be of another cluster: it is not listened to"
