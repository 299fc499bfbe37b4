"""What a person asks of a leader over the backend, and how the leader answers.

The request stands under `request/NAME`, held by the lease of the asking process, so it cannot outlive that. It carries
the fencing token of the term that it is for: a leader of another term takes no notice of it
(docs/design.md#requests-name-a-term). A leader that declines says why under `reply/NAME`, held by its own lease, until
the request is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster_lock.values import Entry, mapping_in


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to step down. `token`: of the term that it is for. `to`: the only instance that may be the heir, None
    for anybody. `number`: makes the request its own. `by`: who asks, for people."""

    token: int
    number: str
    by: str
    to: str | None = None

    def to_bytes(self) -> bytes:
        return json.dumps({"token": self.token, "number": self.number, "by": self.by, "to": self.to}).encode()

    @classmethod
    def of(cls, entry: Entry | None) -> Ask | None:
        """The request that stands there, None if none does, or nobody's lease holds it any more."""
        content = _content(entry)
        token, number, by, to = (content.get(key) for key in ("token", "number", "by", "to"))
        if not isinstance(token, int) or not isinstance(number, str) or not isinstance(by, str):
            return None
        return cls(token, number, by, to) if isinstance(to, str | None) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request `number`: why the term goes on. (That it ends shows at the lock.)"""

    number: str
    declined: str

    def to_bytes(self) -> bytes:
        return json.dumps({"number": self.number, "declined": self.declined}).encode()

    @classmethod
    def of(cls, entry: Entry | None) -> Reply | None:
        """The reply that stands there."""
        content = _content(entry)
        number, declined = content.get("number"), content.get("declined")
        return cls(number, declined) if isinstance(number, str) and isinstance(declined, str) else None


def _content(entry: Entry | None) -> dict[str, Any]:
    if entry is None or entry.lease is None:
        return {}
    return mapping_in(entry.record or b"") or {}
