"""The way to Consul: the library's client over our transport, and what every request has in common."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster_lock.errors import BackendUnavailable, ConfigError, DriverMissing

from ._consul_library import client_class
from ._consul_words import Answered, Operation, is_denied, lease_is_gone, refusal

if TYPE_CHECKING:
    from ._consul_transport import Lane, Transport

Row = dict[str, Any]
"""A key as Consul describes it; its Value is decoded."""


class SessionGone(Exception):
    """A transaction was rolled back because a session that it names is not alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a client shows to be let in. Paths of PEM files; `key` is not needed if it stands in `cert`."""

    token: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    datacenter: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError for files that cannot be used."""
        used = f"ca {self.ca}"
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                used = f"cert {self.cert} with key {self.key or 'in it'}"
                context.load_cert_chain(self.cert, self.key, password=lambda: "")  # never ask for one at the terminal
        except OSError as error:
            raise ConfigError([f"consul: cannot use {used}: {error}"]) from error
        return context


class Link:
    """`rules`: what the policy of the token must say, by the start of a request's path; for messages."""

    def __init__(self, urls: Sequence[str], access: Access, request_timeout: float, rules: Mapping[str, str]) -> None:
        self.urls = [_agent(url) for url in urls]
        if not self.urls:
            raise ConfigError(["consul: no agent is named"])
        self._access = access
        self._request_timeout = request_timeout
        self._rules = rules
        self._transport: Transport | None = None
        self._client: Any = None
        self.seen = 0
        """The largest index that any answer told: whatever is asked from now on knows at least that much."""

    async def open(self) -> None:
        if self._transport is not None:
            return
        client = client_class()
        try:
            from ._consul_transport import Transport
        except ImportError as error:
            raise DriverMissing(
                f"the Consul driver needs aiohttp ({error}): pip install 'cluster-lock[consul]'"
            ) from error
        secure = any(url.startswith("https:") for url in self.urls)
        self._transport = Transport(self.urls, self._access.context() if secure else None, client.misread)
        self._client = client(self._transport, self._access.token, self._access.datacenter)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

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
            if answer.status != 409 or is_denied(answer):
                raise
            if lease_is_gone(answer):
                raise SessionGone from answer
            return None
        self.saw(0, results)
        return results

    def saw(self, index: int, rows: Iterable[Row]) -> None:
        self.seen = max(self.seen, index, *(int(row["ModifyIndex"]) for row in rows))


def _agent(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError([f"consul: {url!r} is no address of an agent, like http://127.0.0.1:8500"])
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError([f"consul: the address of {parts.hostname} must hold no user, password or query"])
    return url.rstrip("/")
