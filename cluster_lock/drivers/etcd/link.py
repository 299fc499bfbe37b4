"""Requests to etcd: over whichever endpoint answers, with a token where there is a user, and every error mapped.

One request gets one time limit, whatever happens on the way: an endpoint that does not answer costs its share of it and
the next one is asked, and the one that answered last is asked first. Every answer tells its cluster, and counts only if
that is ours.
"""

from __future__ import annotations

import asyncio
import operator
import weakref
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any, TypeVar

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.drivers.shared.one_cluster import OneCluster
from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError

from .address import EtcdAccess
from .answers import check
from .errors import AUTH_IS_OFF, IS_THE_ANSWER, EtcdUntrusted, is_stale, meaning, summary
from .library import Library
from .node import Node, Nodes
from .stream import Stream, StreamEnded

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Method = Callable[[Node], Any]

_STATUS, _MEMBERS = attrgetter("maintenance.Status"), attrgetter("cluster.MemberList")

Attempt = Callable[[Node, Metadata, float], Awaitable[T]]
"""One try at one node: with this metadata, within so many seconds."""


class EtcdLink:
    """The way to etcd for everything that the driver does. `needs`: the permission to name when it is refused.

    Raises ConfigError and PermissionRefused for TLS files that cannot be used.
    """

    def __init__(self, library: Library, access: EtcdAccess, request_timeout: float, needs: str) -> None:
        self._library = library
        self._needs = needs
        self._access = access
        self._request_timeout = request_timeout
        self._failures: tuple[type[Exception], ...] = (library.grpc.aio.AioRpcError, StreamEnded, TimeoutError)
        self._misuse = library.grpc.aio.UsageError
        self._ends: tuple[type[BaseException], ...] = (
            *self._failures,
            self._misuse,
            asyncio.CancelledError,
            BackendUnavailable,  # an answer of another cluster, or none of etcd's
        )
        self._nodes = Nodes(library, access)
        self._preferred = 0
        self._names = [node.name for node in self._nodes.all]
        self.cluster: OneCluster[int] = OneCluster("etcd", self._names, operator.eq, "{:x}".format)
        self._looked = clock.now()
        self._looking: asyncio.Task[None] | None = None
        self._token: str | None = None
        self._logging_in = asyncio.Lock()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._closed = False

    @property
    def preferred(self) -> Node:
        """The node that answered last."""
        return self._nodes.all[self._preferred]

    def deadline(self) -> float:
        """When a request that begins now must be over."""
        return clock.now() + self._request_timeout

    async def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            await end([self._looking])
        # A channel of an older grpc does not know of the streams that another task reads.
        for stream in list(self._streams):
            stream.close()
        await self._nodes.close()

    # One request.

    async def ask(self, method: Method, request: Any, doing: str, *, deadline: float | None = None) -> Any:
        """The answer to one unary request. `doing` says for an error what it was to do, with the keys."""
        return await self.rotate(self._unary(method, request), doing, deadline=deadline)

    async def ask_each(
        self, method: Method, request: Any, doing: str, *, deadline: float | None = None
    ) -> dict[str, Any | ClusterLockError]:
        """What each endpoint answers to a unary request, or why it does not, by its address. No password is shown to
        one that does not ask for it."""
        until = self.deadline() if deadline is None else deadline
        attempt = self._unary(method, request)

        async def one(node: Node) -> Any:
            try:
                try:
                    return await attempt(node, (), until - clock.now())
                except self._failures as error:
                    if self._access.user is None or not is_stale(error):
                        raise
                return await self._with_token(attempt, node, until - clock.now())
            except self._ends as error:
                return self.mapped(error, doing, node)

        answers = await asyncio.gather(*map(one, self._nodes.all))
        return dict(zip(self._names, answers, strict=True))

    def stream(self, node: Node, call: Any, request: Any) -> Stream:
        """A stream from `node` that ends with this link at the latest."""
        failure = self._library.grpc.aio.AioRpcError
        stream = Stream(call, request, lambda answer: self._check(node, request, answer), failure)
        self._streams.add(stream)
        return stream

    def _unary(self, method: Method, request: Any) -> Attempt[Any]:
        async def attempt(node: Node, metadata: Metadata, limit: float) -> Any:
            answer = await method(node)(request, timeout=limit, metadata=metadata)
            self._check(node, request, answer)
            return answer

        return attempt

    def _check(self, node: Node, request: Any, answer: Any) -> None:
        """Raises OtherCluster; BackendUnavailable for what is no answer of etcd's to that."""
        try:
            check(request, answer)
        except ValueError as error:
            raise BackendUnavailable(f"etcd {node.name} answered what is no answer of etcd to that") from error
        if answer.header.cluster_id:  # etcd's own proxy leaves it out of what it tells a watch
            self.cluster.heard(node.name, answer.header.cluster_id)

    async def rotate(self, attempt: Attempt[T], doing: str, *, deadline: float | None = None) -> T:
        """What `attempt` gives at the first node where it succeeds, each node being tried once."""
        deadline = self.deadline() if deadline is None else deadline
        self._now_and_then()
        count, first = len(self._names), self._preferred
        failed: list[ClusterLockError] = []
        cause: BaseException | None = None
        for number in range(count):
            if self._closed:
                raise BackendUnavailable(f"etcd: cannot {doing}: the driver is closed")
            index = (first + number) % count
            # What is left is split evenly, so that a black-holed endpoint does not eat the time of the next.
            until = clock.now() + (deadline - clock.now()) / (count - number)
            try:
                answer = await self._at(index, attempt, doing, until)
            except IS_THE_ANSWER:
                self._preferred = index
                raise
            except ClusterLockError as error:
                failed.append(error)
                cause = error.__cause__
                if isinstance(error, EtcdUntrusted):
                    break
            else:
                self._preferred = index
                return answer
        raise summary(failed) from cause

    async def _at(self, index: int, attempt: Attempt[T], doing: str, until: float) -> T:
        """Try at this node; once more with new certificates, if it failed and there are new ones."""
        for is_last in (False, True):
            node = self._nodes.all[index]
            try:
                return await self._with_token(attempt, node, until - clock.now())
            except self._ends as error:
                problem = self.mapped(error, doing, node)
                if isinstance(problem, IS_THE_ANSWER) and len(self._names) > 1:
                    # An error does not tell its cluster, and to another one no lease of ours is known.
                    await self._identify(node, doing, until)
                if is_last or not self._nodes.renewed(node):
                    raise problem from error
        raise AssertionError

    async def _identify(self, node: Node, doing: str, until: float) -> None:
        request = self._library.rpc.StatusRequest()
        try:
            await self._with_token(self._unary(_STATUS, request), node, until - clock.now())
        except self._ends as error:
            raise BackendUnavailable(str(self.mapped(error, doing, node))) from error

    # Certificates and clusters, now and then.

    def _now_and_then(self) -> None:
        """Twice a ttl: are there new certificates, and does anybody belong to another cluster?"""
        if clock.now() - self._looked < max(1.0, self.cluster.ttl / 2):
            return
        self._looked = clock.now()
        self._nodes.look()
        worth = len(self._names) > 1 or self.cluster.in_doubt
        if self.cluster.ttl and worth and (self._looking is None or self._looking.done()):
            self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        await self._ask_all(self.deadline())
        if self.cluster.in_doubt:
            try:
                self.cluster.agree()
            except ClusterLockError:
                return  # a caller that wants a lease, or renews one, is told

    async def _ask_all(self, deadline: float) -> None:
        request = self._library.rpc.StatusRequest()
        await self.ask_each(_STATUS, request, "ask for the cluster", deadline=deadline)

    async def agree_on_a_cluster(self, ttl: float, deadline: float) -> None:
        """Before a lease is granted: do all that answer belong to one cluster? Raises BackendRefused;
        BackendUnavailable."""
        begun = self._looked = clock.now()
        if len(self._names) == 1 and not self.cluster.in_doubt:
            self.cluster.ttl = max(self.cluster.ttl, ttl)
            return
        # A part of the time, since those that are down may be silent.
        await self._ask_all(begun + (deadline - begun) / 3)
        members: set[str] = set()
        if not all(map(self.cluster.knows, self._names)):
            try:
                request = self._library.rpc.MemberListRequest()
                told = await self.ask(_MEMBERS, request, "list the members", deadline=deadline)
                members = {url.rstrip("/") for member in told.members for url in member.clientURLs}
            except (BackendUnavailable, BackendRefused):
                members = set()  # then only a majority of the endpoints will do
        self.cluster.judge(begun, ttl, members)

    # The user's token.

    async def _with_token(self, attempt: Attempt[T], node: Node, limit: float) -> T:
        """Try; if the token is not known any more (its time is over, or the server restarted), once more with a new."""
        if self._access.user is None:
            return await attempt(node, (), limit)
        deadline = clock.now() + limit
        token = self._token
        if token is None:
            token = await self._log_in(node, None, limit)
        try:
            return await attempt(node, _metadata(token), deadline - clock.now())
        except self._failures as error:
            if not is_stale(error):
                raise
        token = await self._log_in(node, token, deadline - clock.now())
        return await attempt(node, _metadata(token), deadline - clock.now())

    async def _log_in(self, node: Node, refused: str | None, limit: float) -> str:
        """A token that is not the one refused. However many need it, one request asks for it."""
        request = self._library.rpc.AuthenticateRequest(name=self._access.user, password=self._access.secret)
        async with asyncio.timeout(limit), self._logging_in:
            if self._token is None or self._token == refused:
                try:
                    answer = await node.auth.Authenticate(request, timeout=limit)
                    self._check(node, request, answer)
                    self._token = str(answer.token)
                except self._library.grpc.aio.AioRpcError as error:
                    if AUTH_IS_OFF not in (error.details() or ""):
                        raise
                    self._token = ""  # as etcd's own client does: a user is given, and nobody asks for one (yet)
            return self._token

    def mapped(self, error: BaseException, doing: str, node: Node) -> ClusterLockError:
        """What a failure is to those above the driver. Raises `error` itself if it cancels us, or is a bug."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
            raise error
        if self._closed:  # gRPC then cancels what is under way and refuses what comes
            return BackendUnavailable(f"etcd: cannot {doing}: the driver was closed")
        if isinstance(error, (asyncio.CancelledError, self._misuse)):
            raise error
        if isinstance(error, BackendUnavailable):
            return error
        return meaning(
            error,
            f"etcd {node.name}: cannot {doing}",
            tls=str(self._access.files) if node.tls else "",
            has_user=self._access.user is not None,
            needs=self._needs,
        )


def _metadata(token: str) -> Metadata:
    # Plain metadata: gRPC's call credentials refuse a connection without TLS.
    return (("token", token),) if token else ()
