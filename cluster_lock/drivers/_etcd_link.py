"""Requests to etcd: over whichever endpoint answers, with a token where there is a user, and every error mapped.

One request gets one time limit, whatever happens on the way: an endpoint that does not answer costs its share of it and
the next one is asked, and the one that answered last is asked first.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cluster_lock import clock
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ClusterLockError,
    LeaseExpired,
    PermissionRefused,
)

from ._etcd_address import Access, Address
from ._etcd_library import Library
from ._etcd_stream import Stream, StreamEnded

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]

_CHANNEL_OPTIONS = (
    # A dead connection is noticed 13 s after it went silent; without ping_timeout_ms it takes 70 s. To pings more often
    # than every 5 s etcd answers by hanging up (too_many_pings).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # By default a server that came back is left alone for up to 120 s, and a lost SYN costs 20 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A request that gRPC repeats by itself could be answered "refused" although its first copy was applied.
    ("grpc.enable_retries", 0),
    # The environment must not lead a lock's requests, and passwords, through a proxy that nobody named here.
    ("grpc.enable_http_proxy", 0),
    # A scan of ten thousand records is larger than the 4 MiB that gRPC takes by default.
    ("grpc.max_receive_message_length", -1),
    # Two drivers of one process share nothing, not even a connection's troubles.
    ("grpc.use_local_subchannel_pool", 1),
)


class LeaseExists(BackendRefused):
    """The lease id that we chose is taken: by an earlier copy of the same request, there is no other way."""


class Compacted(BackendRefused):
    """The revision asked for is older than what etcd keeps."""


class ServerUntrusted(BackendRefused):
    """The server's certificate is not one that our CA vouches for."""


class ClientUntrusted(PermissionRefused):
    """The server does not take our certificate, or wants one and we have none."""


_NO_RIGHT = "etcdserver: permission denied"
# By what etcd says, then by gRPC's code. What is in neither may pass.
_BY_TEXT: tuple[tuple[str, type[ClusterLockError]], ...] = (
    ("etcdserver: requested lease not found", LeaseExpired),
    ("etcdserver: lease already exists", LeaseExists),
    ("etcdserver: mvcc: required revision has been compacted", Compacted),
    ("etcdserver: authentication failed", PermissionRefused),  # a wrong password is INVALID_ARGUMENT
    ("etcdserver: user name is empty", PermissionRefused),  # etcd wants a user, and we have none
)
_BY_CODE: dict[str, type[ClusterLockError]] = {
    "PERMISSION_DENIED": PermissionRefused,
    "INVALID_ARGUMENT": BackendRefused,
    "FAILED_PRECONDITION": BackendRefused,
    "OUT_OF_RANGE": BackendRefused,
    "NOT_FOUND": BackendRefused,
    "UNIMPLEMENTED": BackendRefused,
}
# gRPC's words for a handshake that failed. All of them come as UNAVAILABLE.
_BY_HANDSHAKE: tuple[tuple[str, type[ClusterLockError]], ...] = (
    ("SSL_ERROR_SSL", ServerUntrusted),
    ("CERTIFICATE_VERIFY_FAILED", ServerUntrusted),
    ("is not in peer certificate", ServerUntrusted),
    ("Hostname Verification Check failed", ServerUntrusted),
    ("Unwrap failed", ClientUntrusted),  # the alert after a finished handshake, as TLS 1.3 refuses a client
)
# One node may have the wrong certificate, or be down, and the next one be well.
_ASK_THE_NEXT = (BackendUnavailable, ServerUntrusted, ClientUntrusted)

_STALE_TOKEN = (
    "etcdserver: invalid auth token",  # its time is over, or the server that knew it restarted
    "etcdserver: user name is empty",  # auth was switched on after we had been told that it is off
    "etcdserver: revision of auth store is old",
)
_AUTH_IS_OFF = "etcdserver: authentication is not enabled"


class Node:
    """One endpoint, its channel and stubs."""

    def __init__(self, library: Library, address: Address, credentials: Any) -> None:
        grpc, rpc = library
        self.address = address
        self.channel = (
            grpc.aio.secure_channel(address.target, credentials, options=_CHANNEL_OPTIONS)
            if address.tls
            else grpc.aio.insecure_channel(address.target, options=_CHANNEL_OPTIONS)
        )
        self.kv = rpc.KVStub(self.channel)
        self.leases = rpc.LeaseStub(self.channel)
        self.watches = rpc.WatchStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)
        self.cluster = rpc.ClusterStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)


Attempt = Callable[[Node, Metadata, float], Awaitable[T]]
"""One try at one node: with this metadata, within so many seconds."""


class Link:
    """The way to etcd for everything that the driver does. `needs`: the permission to name when it is refused."""

    def __init__(self, library: Library, access: Access, request_timeout: float, needs: str) -> None:
        self._library = library
        self._needs = needs
        self._access = access
        self._request_timeout = request_timeout
        self._failures: tuple[type[Exception], ...] = (library.grpc.aio.AioRpcError, StreamEnded, TimeoutError)
        self._misuse = library.grpc.aio.UsageError
        self._ends: tuple[type[BaseException], ...] = (*self._failures, self._misuse, asyncio.CancelledError)
        credentials = None
        if any(address.tls for address in access.addresses):
            credentials = library.grpc.ssl_channel_credentials(*access.pem())
        self._nodes = tuple(Node(library, address, credentials) for address in access.addresses)
        self._preferred = 0
        self._token: str | None = None
        self._logging_in = asyncio.Lock()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._closed = False

    @property
    def preferred(self) -> Node:
        """The node that answered last."""
        return self._nodes[self._preferred]

    def deadline(self) -> float:
        """When a request that begins now must be over."""
        return clock.now() + self._request_timeout

    async def close(self) -> None:
        self._closed = True
        # A channel of an older grpc does not know of the streams that another task reads.
        for stream in list(self._streams):
            stream.close()
        for node in self._nodes:
            await node.channel.close()

    async def ask(
        self, method: Callable[[Node], Any], request: Any, doing: str, *, deadline: float | None = None
    ) -> Any:
        """The answer to one unary request. `doing` says for an error what it was to do, with the keys."""

        async def attempt(node: Node, metadata: Metadata, limit: float) -> Any:
            return await method(node)(request, timeout=limit, metadata=metadata)

        return await self.rotate(attempt, doing, deadline=deadline)

    async def ask_each(
        self, method: Callable[[Node], Any], request: Any, doing: str
    ) -> dict[str, Any | ClusterLockError]:
        """What each endpoint answers to a unary request, or why it does not, by its address."""
        deadline = self.deadline()

        async def one(node: Node) -> Any:
            async def attempt(node: Node, metadata: Metadata, limit: float) -> Any:
                return await method(node)(request, timeout=limit, metadata=metadata)

            try:
                return await self._with_token(attempt, node, deadline - clock.now())
            except self._ends as error:
                return self.mapped(error, doing, node)

        answers = await asyncio.gather(*map(one, self._nodes))
        return {str(node.address): answer for node, answer in zip(self._nodes, answers, strict=True)}

    def stream(self, call: Any, request: Any) -> Stream:
        """A stream that ends with this link at the latest."""
        stream = Stream(call, request)
        self._streams.add(stream)
        return stream

    async def rotate(self, attempt: Attempt[T], doing: str, *, deadline: float | None = None) -> T:
        """What `attempt` gives at the first node where it succeeds, each node being tried once."""
        deadline = self.deadline() if deadline is None else deadline
        count, first = len(self._nodes), self._preferred
        failed: list[ClusterLockError] = []
        cause: BaseException | None = None
        for number in range(count):
            if self._closed:
                raise BackendUnavailable(f"etcd: cannot {doing}: the driver is closed")
            index = (first + number) % count
            node = self._nodes[index]
            # What is left is split evenly, so that a black-holed endpoint does not eat the time of the next.
            limit = (deadline - clock.now()) / (count - number)
            try:
                answer = await self._with_token(attempt, node, limit)
            except self._ends as error:
                failed.append(self.mapped(error, doing, node))
                if not isinstance(failed[-1], _ASK_THE_NEXT):
                    self._preferred = index
                    raise failed[-1] from error
                cause = error
            else:
                self._preferred = index
                return answer
        raise _summary(failed) from cause

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
            if not _is_stale(error):
                raise
        token = await self._log_in(node, token, deadline - clock.now())
        return await attempt(node, _metadata(token), deadline - clock.now())

    async def _log_in(self, node: Node, refused: str | None, limit: float) -> str:
        """A token that is not the one refused. However many need it, one request asks for it."""
        request = self._library.rpc.AuthenticateRequest(name=self._access.user, password=self._access.secret)
        async with asyncio.timeout(limit), self._logging_in:
            if self._token is None or self._token == refused:
                try:
                    self._token = str((await node.auth.Authenticate(request, timeout=limit)).token)
                except self._library.grpc.aio.AioRpcError as error:
                    if _AUTH_IS_OFF not in (error.details() or ""):
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
        code, said = _said(error)
        text = f"etcd {node.address}: cannot {doing}: {said}"
        if _NO_RIGHT in said:
            return PermissionRefused(f"{text}. The user's role needs {self._needs}")
        for words, kind in _BY_TEXT:
            if words in said:
                return kind(text)
        if node.address.tls and code == "UNAVAILABLE":
            for words, kind in _BY_HANDSHAKE:
                if words in said:
                    return kind(f"{text} (TLS with ca {self._access.ca}, cert {self._access.cert})")
        if code == "UNAUTHENTICATED" and self._access.user is None:
            return PermissionRefused(text)
        return _BY_CODE.get(code, BackendUnavailable)(text)


def _said(error: BaseException) -> tuple[str, str]:
    """The name of gRPC's code, and the words."""
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED", "no answer in time"
    if isinstance(error, StreamEnded):
        return "", str(error)
    rpc_error: Any = error
    return rpc_error.code().name, rpc_error.details() or ""


def _is_stale(error: Exception) -> bool:
    said = _said(error)[1]
    # A watch with a stale token is told that it is not permitted by etcd before 3.5.5 (etcd#12385).
    denied = isinstance(error, StreamEnded) and _NO_RIGHT in said
    return denied or any(words in said for words in _STALE_TOKEN)


def _metadata(token: str) -> Metadata:
    # Plain metadata: gRPC's call credentials refuse a connection without TLS.
    return (("token", token),) if token else ()


def _summary(failed: list[ClusterLockError]) -> ClusterLockError:
    """All nodes failed: the one reason that they share, else the backend is not available."""
    kinds = {type(error) for error in failed}
    if len(failed) == 1 or (len(kinds) == 1 and BackendUnavailable not in kinds):
        return failed[0]
    return BackendUnavailable("; ".join(map(str, failed)))
