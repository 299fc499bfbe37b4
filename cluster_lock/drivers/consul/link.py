"""The way to Consul: the library's client over our transport, and what every request has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster_lock import clock
from cluster_lock.drivers.shared.addresses import addresses
from cluster_lock.drivers.shared.tls_files import TLSFiles
from cluster_lock.errors import BackendUnavailable, ConfigError, DriverMissing
from cluster_lock.values import Validity

from .cluster import AgentsCluster
from .library import client_class
from .words import Answered, Operation, is_the_answer, lease_is_gone, refusal

if TYPE_CHECKING:
    from .transport import Lane, Transport

Row = dict[str, Any]
"""A key as Consul describes it; its Value is decoded."""


class SessionGone(Exception):
    """A transaction was rolled back because a session that it names is not alive."""


class ConsulAccess:
    """Where Consul is and what a client shows to be let in. Paths of PEM files; `key` is not needed if it stands in
    `cert`. Raises ConfigError."""

    def __init__(
        self, urls: Sequence[str], token: str | None, ca: str | None, cert: str | None, key: str | None
    ) -> None:
        found, problems = addresses("consul", urls, {"ca": ca, "cert": cert, "token": token}, port=None, paths=True)
        if not urls:
            problems.append("consul: no agent is named")
        if problems:
            raise ConfigError(problems)
        self.addresses = found
        self.urls = [str(address) for address in found]
        self.secure = any(address.tls for address in found)
        self.files = TLSFiles("consul", ca, cert, key)
        self.token = token


class ConsulLink:
    """`rules`: what the policy of the token must say, by the start of a request's path; for messages."""

    def __init__(
        self, access: ConsulAccess, datacenter: str | None, request_timeout: float, rules: Mapping[str, str]
    ) -> None:
        self.urls = access.urls
        self._access = access
        self._datacenter = datacenter
        self._request_timeout = request_timeout
        self._rules = rules
        self._transport: Transport | None = None
        self._client: Any = None
        self.cluster = AgentsCluster(self.urls)
        self.seen = 0
        """The largest index that any answer told: whatever is asked from now on knows at least that much."""

    async def open(self) -> None:
        """Raises DriverMissing; ConfigError and PermissionRefused for certificate files that cannot be used."""
        if self._transport is not None:
            return
        client = client_class()
        try:
            from .transport import Transport
        except ImportError as error:
            raise DriverMissing(
                f"the Consul driver needs aiohttp ({error}): pip install 'cluster-lock[consul]'"
            ) from error
        if self._access.secure:
            self._access.files.load()
        files = self._access.files if self._access.secure else None
        self._transport = Transport(
            self.urls, files, self.cluster, self._datacenter, self._access.token, client.misread
        )
        self._client = client(self._transport, self._access.token, self._datacenter)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    @property
    def certificates(self) -> dict[str, Validity]:
        return self._access.files.validity

    async def server_certificates(self) -> dict[str, Validity]:
        return await self._access.files.shown_by(self._access.addresses, self._request_timeout)

    async def agree_on_a_cluster(self, ttl: float) -> None:
        """Inside `asking`, before a lease is granted: do all agents that answer belong to one cluster? Raises
        BackendRefused; BackendUnavailable."""
        begun = clock.now()
        if len(self.urls) > 1:
            await self.ask_clusters()
        self.cluster.judge(begun, ttl, ())

    async def agree_on_a_session(self, session: str, ttl: float) -> None:
        """Inside `asking`, when a session was made: does every agent know it? Raises BackendRefused."""
        self.cluster.made(session, ttl)
        await self.ask_clusters(again=True)
        self.cluster.check()

    async def ask_clusters(self, *, again: bool = False) -> dict[str, str]:
        """Inside `asking`: ask each of several agents for its cluster, in a part of the time. By address, what is the
        matter with those that do not serve. `again`: only those that have just told."""
        assert self._transport is not None, "open() comes first"
        return await self._transport.ask_clusters(again=again) if len(self.urls) > 1 else {}

    @contextmanager
    def asking(self, doing: str, *, seconds: float | None = None, lane: Lane = "ordinary") -> Iterator[Any]:
        """The client, for requests that together take no longer than `seconds` (default: the request timeout).

        Answers that nobody inside catches are raised as what they mean. `doing`: "lock x", for the message.
        """
        if self._transport is None:
            raise BackendUnavailable(f"{self.urls[0]}: the driver is not open")
        with self._transport.limited(self._request_timeout if seconds is None else seconds, lane):
            try:
                yield self._client
            except Answered as answer:
                rules = next(rules for start, rules in self._rules.items() if answer.path.startswith(start))
                raise refusal(answer, doing, rules) from answer

    async def transact(self, client: Any, *steps: Operation) -> list[Row] | None:
        """What the steps left in the store; None if one of them did not apply, and then nothing was changed. Raises
        SessionGone if that was because of a session."""
        try:
            results: list[Row] = await client.transact(steps)
        except Answered as answer:
            if not is_the_answer(answer):
                raise
            if lease_is_gone(answer):
                raise SessionGone from answer
            return None
        self.saw(0, results)
        return results

    def saw(self, index: int, rows: Iterable[Row]) -> None:
        self.seen = max(self.seen, index, *(int(row["ModifyIndex"]) for row in rows))
