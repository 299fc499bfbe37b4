"""How names, durations and transactions are spelt in Consul's API, and what its refusals mean."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused
from cluster_lock.host.masking import shortened
from cluster_lock.values import LARGEST, Record

Operation = dict[str, Any]

HEALTH = "/v1/operator/autopilot/health"
_RENEW = "/v1/session/renew/"
_NO_SESSION = re.compile(r"Session id '[^']*' not found")
_ALLOWED_TTL = re.compile(r"must be between \[(.+?)=(.+?)\]")

IN_ONE_TRANSACTION = 64
"""Operations; Consul refuses more."""


# -- answers -----------------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """What the libraries' callbacks are given: py-consul reads the first three, python-consul2 all four."""

    code: int
    headers: Mapping[str, str]
    body: str
    content: bytes


class Answered(Exception):
    """An agent answered, and not with what was asked for. What it means depends on the request."""

    def __init__(self, url: str, path: str, response: Response) -> None:
        advice = next((f" ({advice})" for words, advice in _ADVICE if words in response.body), "")
        super().__init__(f"{url} answered {response.code}: {brief(response.body)}{advice}")
        self.path = path
        self.status = response.code
        self.body = response.body


# What Consul says of its own state, and what a person should know then.
_ADVICE = (
    ("No cluster leader", "most of its servers are down or do not reach one another"),
    ("No known Consul servers", "this agent knows no server"),
    ("no space left on device", "the disk of a server is full"),
    ("leadership lost while committing", "the leading server changed, or cannot write to its disk"),
)


def understood(path: str, found: Any) -> Any:
    """What a client library made of an answer to a request for `path`, if it is of the kinds that Consul writes. Raises
    ValueError, LookupError, TypeError or AttributeError."""
    if path.startswith("/v1/kv/"):
        index, rows = found
        _must(0 <= int(index) <= LARGEST)
        for row in [rows] if isinstance(rows, dict) else rows or ():
            _check_row(row)
            _must(isinstance(row["Value"], bytes | None))
    elif path == "/v1/txn":
        for row in found:
            _check_row(row)
    elif path == "/v1/session/list":
        for session in found[1]:
            _must(isinstance(session["ID"], str) and isinstance(session.get("TTL", ""), str))
    elif path == HEALTH:
        for server in found.get("Servers") or ():
            _must(all(isinstance(server[name], str) for name in ("Name", "Address", "SerfStatus", "Version")))
            _must(all(isinstance(server[name], bool) for name in ("Healthy", "Leader")))
    elif path in ("/v1/status/leader", "/v1/status/peers"):
        _must(isinstance(found, str) or (isinstance(found, list) and all(isinstance(peer, str) for peer in found)))
    return found


def _check_row(row: Any) -> None:
    _must(isinstance(row["Key"], str) and isinstance(row.get("Session"), str | None))
    for name in ("CreateIndex", "ModifyIndex", "LockIndex"):
        _must(type(row[name]) is int and 0 <= row[name] <= LARGEST)


def _must(hold: bool) -> None:
    if not hold:
        raise ValueError("of another kind than Consul writes")


def brief(text: str) -> str:
    return shortened(" ".join(text.split()), 300) or "(nothing)"


# -- keys --------------------------------------------------------------------------------------------------------------

# An agent cleans the path of a request before it looks a key up (Go's ServeMux: "//", and "." and ".." as segments) and
# refuses what is not printable. Everything else stands in the key as it is, for people to read.
_DOTS = re.compile(r"(?<![^/])\.{1,2}(?![^/])")
_EMPTY = re.compile(r"(?<![^/])/")


def quote_key(name: str) -> str:
    """The name as part of a key: no two names have the same."""
    key = "".join(char if char.isprintable() and char != "%" else quote(char, safe="") for char in name)
    return _EMPTY.sub("%2F", _DOTS.sub(lambda dots: "%2E" * len(dots[0]), key))


def name_of(key: str) -> str | None:
    """The name that `quote_key` makes this key of; None if there is none, so that nobody of us wrote it."""
    name = unquote(key)
    try:
        return name if quote_key(name) == key else None
    except UnicodeEncodeError:  # half a character
        return None


def common_start(keys: Collection[str]) -> str:
    """What all of them begin with; of no keys, nothing."""
    first, last = min(keys, default=""), max(keys, default="")
    unlike = (number for number, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(unlike, min(len(first), len(last)))]


def duration(seconds: float) -> str:
    """As Go reads it, without an exponent. A bare number would be nanoseconds, and below 1000 seconds."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


# -- transactions ------------------------------------------------------------------------------------------------------


def operation(verb: str, key: str, *, value: bytes | None = None, **more: str | int) -> Operation:
    """One step of a transaction. `more`: Session, Index."""
    made: Operation = {"Verb": verb, "Key": key, **more}
    if value is not None:
        made["Value"] = base64.b64encode(value).decode()
    return made


def unchanged(key: str, row: Mapping[str, Any] | None) -> Operation:
    """Does the key stand as it was read?"""
    return (
        operation("check-not-exists", key) if row is None else operation("check-index", key, Index=row["ModifyIndex"])
    )


def is_ours(row: Mapping[str, Any] | None) -> bool:
    """Nobody's, or a record that one of us wrote: it may be overwritten."""
    return row is None or Record.from_bytes(row["Value"] or b"") is not None


def lease_is_gone(answer: Answered) -> bool:
    """Refused because of the session, by Consul's own words: whatever else stands in the way may say 404 too. One whose
    id has another shape than Consul's own was never alive."""
    if answer.status == 404:
        return answer.path.startswith(_RENEW) and _NO_SESSION.match(_plain(answer)) is not None
    refused = answer.status in (409, 500)
    return refused and any(
        reason.startswith(("invalid session", "failed session lookup")) for reason in _reasons(answer)
    )


def is_the_answer(answer: Answered) -> bool:
    """Is this the servers' word about the session or the keys that were asked about, or about themselves? Any other
    agent would say the same. Everything else is about the agent, or about whatever stands in front of it."""
    if lease_is_gone(answer) or _ALLOWED_TTL.search(answer.body):
        return True
    if answer.path == HEALTH and answer.status == 429:  # not all of them are healthy
        return True
    return answer.path == "/v1/txn" and answer.status == 409 and bool(_errors(answer)) and not is_denied(answer)


def may_pass(answer: Answered) -> bool:
    """Is it no refusal, but trouble?"""
    return not is_denied(answer) and (answer.status == 429 or answer.status >= 500)


def is_denied(answer: Answered) -> bool:
    """A transaction says so with 409, one reason for each operation."""
    return answer.status == 403 or any(reason.startswith("Permission denied") for reason in _reasons(answer))


def _reasons(answer: Answered) -> list[str]:
    return _errors(answer) or [_plain(answer)]


def _errors(answer: Answered) -> list[str]:
    """Why a transaction was rolled back; nothing if it does not say so as Consul does."""
    try:
        return [str(error["What"]) for error in json.loads(_plain(answer))["Errors"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _plain(answer: Answered) -> str:
    # A follower that asked its leader says so first.
    return answer.body.replace("rpc error making call: ", "")


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusal(answer: Answered, doing: str, needs: str) -> BackendUnavailable | BackendRefused:
    """What an answer means that is none to what was asked. `needs`: the rules that a token must have for it."""
    if is_denied(answer):
        if "ACL not found" in answer.body:
            return PermissionRefused(f"cannot {doing}: {answer}. This Consul does not know the token")
        return PermissionRefused(f"cannot {doing}: {answer}. The token needs {needs}")
    if may_pass(answer):
        return BackendUnavailable(f"cannot {doing}: {answer}")
    return BackendRefused(f"cannot {doing}: {answer}. Is this the address of a Consul agent?")


def refused_session(answer: Answered, ttl: float, node: str | None) -> BackendUnavailable | BackendRefused | None:
    """What only the creation of a session can be refused for, if it is that."""
    if allowed := _ALLOWED_TTL.search(answer.body):
        return BackendRefused(
            f"Consul allows a ttl from {allowed[1]} (session_ttl_min of the servers) to {allowed[2]}, not {ttl:g} s"
        )
    if "Missing node registration" in answer.body:
        if node is not None:
            return BackendRefused(
                f"session_node {node!r} is not registered: PUT /v1/catalog/register with"
                f' {{"Node": "{node}", "Address": "127.0.0.1", "NodeMeta": {{"external-node": "true"}}}}'
            )
        return BackendUnavailable("the agent has not registered itself in the catalog yet")
    return None
