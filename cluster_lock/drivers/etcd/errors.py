"""What an error of etcd or gRPC means to those above the driver.

Three kinds. Etcd's word about the lease or the revision that was asked about is the answer, wherever it comes from. An
untrusted certificate ends the request: anybody who stands there must not make us show a password elsewhere. Everything
else is about the endpoint that said it, and the next one is asked: it may be down, a learner, half set up, behind with
its users, or no etcd at all. A refusal is one only if all endpoints agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError, LeaseExpired, PermissionRefused
from cluster_lock.host.masking import shortened

from .stream import StreamEnded


class LeaseExists(BackendRefused):
    """The lease id that we chose is taken: by an earlier copy of the same request, there is no other way."""


class Compacted(BackendRefused):
    """The revision asked for is older than what etcd keeps."""


class EtcdUntrusted(BackendRefused):
    """The server's certificate is not one that our CA vouches for."""


class ClientUntrusted(PermissionRefused):
    """The server does not take our certificate, or wants one and we have none."""


IS_THE_ANSWER = (LeaseExpired, LeaseExists, Compacted)

NO_RIGHT = "etcdserver: permission denied"
AUTH_IS_OFF = "etcdserver: authentication is not enabled"
_STALE_TOKEN = (
    "etcdserver: invalid auth token",  # its time is over, or the server that knew it restarted
    "etcdserver: user name is empty",  # auth was switched on after we had been told that it is off
    "etcdserver: revision of auth store is old",
)

# By what etcd says, then by gRPC's code. What is in neither may pass.
_BY_TEXT: tuple[tuple[str, type[ClusterLockError]], ...] = (
    ("etcdserver: requested lease not found", LeaseExpired),
    ("etcdserver: lease already exists", LeaseExists),
    ("etcdserver: mvcc: required revision has been compacted", Compacted),
    ("etcdserver: mvcc: required revision is a future revision", BackendUnavailable),  # it was set back, or lags behind
    ("etcdserver: rpc not supported for learner", BackendUnavailable),  # until it is promoted
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
    ("_ALERT_", ClientUntrusted),  # what the server says of our certificate before TLS 1.3
    ("SSL_ERROR_SSL", EtcdUntrusted),
    ("CERTIFICATE_VERIFY_FAILED", EtcdUntrusted),
    ("is not in peer certificate", EtcdUntrusted),
    ("Hostname Verification Check failed", EtcdUntrusted),
    ("Unwrap failed", ClientUntrusted),  # the alert after a finished handshake, as TLS 1.3 refuses a client
)
# What etcd says of its own state, and what a person should know then.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        "etcdserver: mvcc: database space exceeded",
        "its space is used up and it takes no writes: compact and defragment it, then `etcdctl alarm disarm`",
    ),
    ("etcdserver: corrupt cluster", "the data of its members differs and it takes no writes: see `etcdctl alarm list`"),
    ("etcdserver: no leader", "most of its members are down or do not reach one another"),
    ("etcdserver: rpc not supported for learner", "it is not a full member yet: `etcdctl member promote`"),
    ("etcdserver: too many requests", "it cannot keep up with its writes"),
    ("etcdserver: request timed out", "most of its members are down, or its disk is too slow"),
)


_LONGEST = 1000
"""Characters of what an endpoint says, in an error."""


def said(error: BaseException) -> tuple[str, str]:
    """The name of gRPC's code, and the words."""
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED", "no answer in time"
    if isinstance(error, StreamEnded):
        return "", str(error)
    rpc_error: object = error
    return rpc_error.code().name, rpc_error.details() or ""  # type: ignore[attr-defined]  # grpc's AioRpcError


def meaning(error: BaseException, text: str, *, tls: str, has_user: bool, needs: str) -> ClusterLockError:
    """`text`: where and what for. `tls`: with which files TLS is spoken there, "" if it is not. `needs`: the right to
    be named when it is missing."""
    code, words = said(error)
    told = f"{text}: {shortened(' '.join(words.split()), _LONGEST)}"
    for start, advice in _ADVICE:
        if start in words:
            told = f"{told} ({advice})"
    if NO_RIGHT in words:
        return PermissionRefused(f"{told}. The user's role needs {needs}")
    for start, kind in _BY_TEXT:
        if start in words:
            return kind(told)
    if tls and code == "UNAVAILABLE":
        for part, kind in _BY_HANDSHAKE:
            if part in words:
                why = "it does not take our certificate, or wants one; " if kind is ClientUntrusted else ""
                return kind(f"{told} ({why}{tls})")
    if not tls and code == "UNAVAILABLE" and "Socket closed" in words:
        told = f"{told} (it may want https)"
    if code == "UNAUTHENTICATED" and not has_user:
        return PermissionRefused(told)
    return _BY_CODE.get(code, BackendUnavailable)(told)


def is_stale(error: Exception) -> bool:
    """Is the token not known any more?"""
    words = said(error)[1]
    # A watch with a stale token is told that it is not permitted by etcd before 3.5.5 (etcd#12385).
    denied = isinstance(error, StreamEnded) and NO_RIGHT in words
    return denied or any(start in words for start in _STALE_TOKEN)


def summary(failed: Sequence[ClusterLockError]) -> ClusterLockError:
    """No endpoint served: a refusal if that is what all of them say, else the backend is not available."""
    if len(failed) == 1:
        return failed[0]
    texts = "; ".join(dict.fromkeys(map(str, failed)))
    if not all(isinstance(error, BackendRefused) for error in failed):
        return BackendUnavailable(texts)
    denied = any(isinstance(error, PermissionRefused) for error in failed)
    return PermissionRefused(texts) if denied else BackendRefused(texts)
