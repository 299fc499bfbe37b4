"""What one look at some keys shows, and what is new in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cluster_lock.values import Changes, Entry

_ROUNDING = 0.001
"""Seconds."""
NOTHING: dict[str, Any] = {"name": None, "space_index": 0, "swept": 0}
"""The row of a store in which nobody has taken a turn."""


@dataclass(frozen=True, slots=True)
class Position:
    """Every turn up to `index` was seen, and that the leases of the keys `ended` were over. Their end is no change in
    the store, so that no index could tell it. Nor can the index of a row that no turn has put there: what stands in
    such rows is in `strange`, by their names."""

    index: int
    ended: frozenset[str]
    strange: Mapping[str, int]


class View:
    """The rows of cluster_lock.read, asked for at the moment `asked`."""

    def __init__(self, names: Collection[str], rows: list[dict[str, Any]], asked: float) -> None:
        found = {row["name"]: row for row in rows if row["name"] is not None}
        self.asked = asked
        self._names, self._rows = names, found
        self._space, self._swept = rows[0]["space_index"], rows[0]["swept"]
        ended = frozenset(name for name, row in found.items() if row["lease"] is not None and not row["held"])
        self._strange = {name: _content(row) for name, row in found.items() if self._is_strange(row)}
        position = Position(self._space, ended, self._strange)
        self._ended = ended
        self.changes = Changes(position, {name: self._entry(name) for name in names})
        held = [row for row in found.values() if row["held"]]
        self.overlong = [row["lease"] for row in held if row["ends_in"] > row["ttl"] + _ROUNDING]
        """Leases with more time left than they were given for."""
        self.first_end = asked + min((min(row["ends_in"], row["ttl"]) for row in held), default=1e9) + 0.002
        """When the first of the leases is over if it is not renewed; a moment."""

    def has(self, name: str) -> bool:
        """Was it looked at?"""
        return name in self._names

    def lease_of(self, name: str) -> str | None:
        """What the row names as its lease, which may be over."""
        row = self._rows.get(name)
        return row["lease"] if row is not None else None

    def differs_from(self, since: Position) -> bool:
        """May anything have changed since then? Also if the store was set back, or has forgotten."""
        if since.index > self._space or since.index < self._swept:
            return True
        if any(self._strange.get(name) != since.strange.get(name) for name in self._names):
            return True
        if any(row["held"] and name in since.ended for name, row in self._rows.items()):
            return True  # a renewal was under way when its old time was over
        ours = (row["index"] for name, row in self._rows.items() if name not in self._strange)
        return bool(self._ended - since.ended) or any(index > since.index for index in ours)

    def _is_strange(self, row: dict[str, Any]) -> bool:
        """Is it a person's: a record without a lease, or an index that no turn has reached?"""
        without_lease = row["lease"] is None and row["record"] is not None
        return without_lease or row["index"] > self._space

    def _entry(self, name: str) -> Entry:
        row = self._rows.get(name)
        if row is None or row["record"] is None or name in self._ended:
            return Entry(name, None, self._space, None)
        # A person's index is told as that of the last turn: it must not go back when the row does.
        index = self._space or row["index"] if name in self._strange else row["index"]
        return Entry(name, row["lease"], index, row["record"])


def _content(row: dict[str, Any]) -> int:
    return hash((row["lease"], row["index"], row["record"]))
