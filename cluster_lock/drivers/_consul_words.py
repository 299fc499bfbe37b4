"""How names, durations and transactions are spelt in Consul's API, and what its refusals mean."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused
from cluster_lock.masking import shortened
from cluster_lock.values import Record

Operation = dict[str, Any]

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
        super().__init__(f"{url} answered {response.code}: {brief(response.body)}")
        self.path = path
        self.status = response.code
        self.body = response.body


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


def unquote_key(key: str) -> str:
    return unquote(key)


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
    """Refused because of the session. One whose id has another shape than Consul's own was never alive."""
    return any(reason.startswith(("invalid session", "failed session lookup")) for reason in _reasons(answer))


def is_denied(answer: Answered) -> bool:
    """A transaction says so with 409, one reason for each operation."""
    return answer.status == 403 or any(reason.startswith("Permission denied") for reason in _reasons(answer))


def _reasons(answer: Answered) -> list[str]:
    # A follower that asked its leader says so first.
    plain = answer.body.replace("rpc error making call: ", "")
    try:
        return [str(error["What"]) for error in json.loads(plain)["Errors"]]
    except (ValueError, LookupError, TypeError):
        return [plain]


# -- refusals ----------------------------------------------------------------------------------------------------------


def refusal(answer: Answered, doing: str, needs: str) -> BackendUnavailable | BackendRefused:
    """What an answer means that is none to what was asked. `needs`: the rules that a token must have for it."""
    if is_denied(answer):
        if "ACL not found" in answer.body:
            return PermissionRefused(f"cannot {doing}: {answer}. This Consul does not know the token")
        return PermissionRefused(f"cannot {doing}: {answer}. The token needs {needs}")
    if answer.status == 429 or answer.status >= 500:
        return BackendUnavailable(f"cannot {doing}: {answer}")
    return BackendRefused(f"cannot {doing}: {answer}. Is this the address of a Consul agent?")


_ALLOWED_TTL = re.compile(r"must be between \[(.+?)=(.+?)\]")


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
