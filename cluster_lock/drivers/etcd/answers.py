"""Is an answer etcd's, to what was asked? Anybody who stands at an endpoint may answer anything: an empty message has a
revision 0, and a lease that is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster_lock.values import LARGEST

_LONGEST_TTL = 9_000_000_000
"""Seconds: etcd's own limit."""
_LONGEST_TOKEN = 8192
"""Characters; gRPC takes no more metadata."""


def check(request: Any, answer: Any) -> None:
    """Raises ValueError for what etcd does not answer to `request`."""
    _must(answer is not None)  # what gRPC gives for bytes that are no message
    _must(answer.HasField("header") and 0 <= answer.header.revision <= LARGEST and answer.header.raft_term <= LARGEST)
    if more := _MORE.get(type(answer).__name__):
        more(request, answer)


def _transaction(request: Any, answer: Any) -> None:
    _must(answer.header.revision > 0)
    asked = request.success if answer.succeeded else request.failure
    _must(len(asked) == len(answer.responses))
    for operation, done in zip(asked, answer.responses, strict=True):
        kind = operation.WhichOneof("request").removeprefix("request_")
        _must(done.WhichOneof("response") == f"response_{kind}")
        if kind == "range":
            _keys(operation.request_range, done.response_range)


def _range(request: Any, answer: Any) -> None:
    _must(answer.header.revision > 0)
    _keys(request, answer)


def _keys(request: Any, answer: Any) -> None:
    _must(bool(request.range_end) or len(answer.kvs) <= 1)
    for kv in answer.kvs:
        _must(request.key <= kv.key < request.range_end if request.range_end else kv.key == request.key)
        _must(0 < kv.mod_revision <= LARGEST and kv.version > 0 and kv.lease >= 0)


def _grant(request: Any, answer: Any) -> None:
    _must(answer.ID == request.ID and 0 < answer.TTL <= _LONGEST_TTL)


def _renewal(request: Any, answer: Any) -> None:
    _must(answer.ID == request.ID and answer.TTL <= _LONGEST_TTL)


def _time_to_live(request: Any, answer: Any) -> None:
    _must(answer.ID == request.ID and answer.TTL <= _LONGEST_TTL and 0 <= answer.grantedTTL <= _LONGEST_TTL)


def _watch(request: Any, answer: Any) -> None:
    since = request.create_request.start_revision
    for event in answer.events:
        _must(since <= event.kv.mod_revision <= LARGEST and event.kv.lease >= 0)


def _token(request: Any, answer: Any) -> None:
    token = answer.token
    _must(0 < len(token) <= _LONGEST_TOKEN and token.isascii() and token.isprintable())


_MORE: dict[str, Callable[[Any, Any], None]] = {
    "TxnResponse": _transaction,
    "RangeResponse": _range,
    "LeaseGrantResponse": _grant,
    "LeaseKeepAliveResponse": _renewal,
    "LeaseTimeToLiveResponse": _time_to_live,
    "WatchResponse": _watch,
    "AuthenticateResponse": _token,
}


def _must(hold: bool) -> None:
    if not hold:
        raise ValueError("not as etcd answers")
