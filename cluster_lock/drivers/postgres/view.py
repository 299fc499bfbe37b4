"""What one look at some keys shows, and what is new in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cluster_lock.values import Changes, Entry

_ROUNDING = 0.001
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Position:
    """Everything up to `index` was seen, and that the leases of the keys `ended` were over. Their end is no change in
    the store, so that no index could tell it."""

    index: int
    ended: frozenset[str]


class View:
    """The rows of cluster_lock.read, asked for at the moment `asked`."""

    def __init__(self, names: Collection[str], rows: list[dict[str, Any]], asked: float) -> None:
        found = {row["name"]: row for row in rows if row["name"] is not None}
        self._rows = found
        self._space, self._swept = rows[0]["space_index"], rows[0]["swept"]
        ended = frozenset(name for name, row in found.items() if row["lease"] is not None and not row["held"])
        # A row that a person put there may have an index that no turn has reached.
        position = Position(max([self._space, *(row["index"] for row in found.values())]), ended)
        self._ended = ended
        self.changes = Changes(position, {name: self._entry(name) for name in names})
        held = [row for row in found.values() if row["held"]]
        self.overlong = [row["lease"] for row in held if row["ends_in"] > row["ttl"] + _ROUNDING]
        """Leases with more time left than they were given for."""
        self.first_end = asked + min((min(row["ends_in"], row["ttl"]) for row in held), default=1e9) + 0.002
        """When the first of the leases is over if it is not renewed; a moment."""

    def differs_from(self, since: Position) -> bool:
        """May anything have changed since then? Also if the store was set back, or has forgotten."""
        if since.index > self.changes_index or since.index < self._swept:
            return True
        if any(row["held"] and name in since.ended for name, row in self._rows.items()):
            return True  # a renewal was under way when its old time was over
        return bool(self._ended - since.ended) or any(row["index"] > since.index for row in self._rows.values())

    @property
    def changes_index(self) -> int:
        position = self.changes.position
        assert isinstance(position, Position)
        return position.index

    def _entry(self, name: str) -> Entry:
        row = self._rows.get(name)
        if row is None or row["record"] is None or name in self._ended:
            return Entry(name, None, self._space, None)
        return Entry(name, row["lease"], row["index"], row["record"])
