"""What the server says: status, body, and the updates that the body carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `update_ids` are the updates in it, for the oracle."""

    status: int
    text: str
    retry_after: int = 0
    content_type: str = "application/json"
    update_ids: Sequence[int] = ()
    conflict: str | None = None
    """The reason, when this is the server's own 409 (an injected one is the harness's doing)."""

    def json(self) -> Any:
        return json.loads(self.text)


def ok(result: object, description: str | None = None) -> Answer:
    body: dict[str, object] = {"ok": True, "result": result}
    if description is not None:
        body["description"] = description
    return Answer(200, json.dumps(body))


def ok_updates(texts: Sequence[str], update_ids: Sequence[int]) -> Answer:
    """A batch of updates whose JSON was made when they were pushed: a batch costs one join."""
    return Answer(200, '{"ok":true,"result":[' + ",\n".join(texts) + "]}", update_ids=update_ids)


def error(status: int, description: str) -> Answer:
    return Answer(status, json.dumps({"ok": False, "error_code": status, "description": description}))


def conflict(reason: str) -> Answer:
    return replace(error(409, reason), conflict=reason)


def too_many_requests(retry_after: int) -> Answer:
    """429 says its seconds three times: in the text, in the parameters and in a header (Query.cpp:105-112)."""
    body = {
        "ok": False,
        "error_code": 429,
        "description": f"Too Many Requests: retry after {retry_after}",
        "parameters": {"retry_after": retry_after},
    }
    return Answer(429, json.dumps(body), retry_after=retry_after)


def html(status: int, text: str) -> Answer:
    """What a reverse proxy says when the server behind it does not: no JSON at all."""
    return Answer(status, text, content_type="text/html")
