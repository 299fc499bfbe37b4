"""What the driver remembers of its own acquires, so that a repeated one tells the same as the first.

Consul keeps one value under a key: once ours stands there, the last holder's words are gone. And a stranger's `kv put`
leaves the lock with us but moves its index, from which the token was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster_lock.values import Grant, Lease


@dataclass(slots=True)
class Attempt:
    record: bytes
    previous: bytes | None
    token: int | None = None
    created: int | None = None


class Grants:
    """By lease and name. An attempt is noted before it is sent, since its answer may be lost."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, str], Attempt] = {}

    def attempt(self, lease: Lease, name: str, record: bytes, previous: bytes | None) -> Attempt:
        attempt = self._attempts[lease.id, name] = Attempt(record, previous)
        return attempt

    def granted(self, attempt: Attempt, lease: Lease, name: str, result: Mapping[str, Any]) -> Grant:
        """The grant that this attempt's transaction made; `result`: its last operation's. Another attempt for the same
        lock may have been noted since, and will be refused."""
        index = int(result["ModifyIndex"])
        attempt.token, attempt.created = index, int(result["CreateIndex"])
        self._attempts[lease.id, name] = attempt
        return Grant(name, lease, index, index, attempt.record, attempt.previous)

    def found(self, lease: Lease, name: str, row: Mapping[str, Any]) -> Grant:
        """The grant as it stands under a key that `lease` holds.

        A token that nobody was told yet (the answer was lost, or a leader transferred the lock) is the index as it is
        now: above that of every earlier grant, below that of every later one.
        """
        index, record = int(row["ModifyIndex"]), row["Value"] or b""
        attempt = self._attempts.get((lease.id, name))
        if attempt is None or not _is_of(attempt, row, index, record):
            attempt = self._attempts[lease.id, name] = Attempt(record, None)
        if attempt.token is None:
            attempt.token, attempt.created = index, int(row["CreateIndex"])
        return Grant(name, lease, attempt.token, index, record, attempt.previous)

    def forget(self, lease_id: str, name: str | None = None) -> None:
        """The lease holds `name`, or anything, no more."""
        if name is not None:
            self._attempts.pop((lease_id, name), None)
            return
        for known in [known for known in self._attempts if known[0] == lease_id]:
            del self._attempts[known]


def _is_of(attempt: Attempt, row: Mapping[str, Any], index: int, record: bytes) -> bool:
    """Is what stands there this attempt's grant, and not one that came to us in another way since?"""
    if attempt.token is None:
        return attempt.record == record
    # A plain put under a held lock moves the index and zeroes LockIndex, which is 1 or more after any lock operation.
    overwritten = row["LockIndex"] == 0 and row["CreateIndex"] == attempt.created
    return index == attempt.token or overwritten
