"""The largest fencing token of each lock that this process has heard of or held.

A store that was restored, rebuilt or replaced gives out smaller ones again, and no lock may be led on one of those:
a store that compares the token with what was written before would refuse all that the new leader does.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster_lock.errors import TokenWentBack
from cluster_lock.values import Record

REMEMBERED = 20_000
"""Locks. A process that takes ever new ones forgets those that it touched longest ago."""


class Tokens:
    """`floor`: what is added to every token here, so none was ever smaller."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._largest: dict[str, int] = {}

    def of(self, name: str) -> int:
        """A grant of the lock `name` that is asked for from now on must have a larger one."""
        return max(self._largest.get(name, 0), self._floor)

    def largest(self, name: str) -> int | None:
        """Of the lock `name`, as it was heard of or held; None if none was."""
        return self._largest.get(name)

    def note(self, name: str, token: int) -> None:
        """The lock `name` was granted, here or elsewhere, with this fencing token."""
        self._largest[name] = max(token, self._largest.pop(name, 0))
        if len(self._largest) > REMEMBERED:
            del self._largest[next(iter(self._largest))]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a token is too small: one that is not was there before. `key`, `record`: where that stands and who wrote it;
    without a record this process saw it itself."""

    token: int
    key: str
    record: Record | None = None

    def refuse(self, name: str, backend: str, token: int) -> TokenWentBack:
        """The error of a grant of the lock `name` with this `token`."""
        granted = f"{name}: {backend} granted the fencing token {token}. Nobody leads on it: "
        if self.record is None:
            return TokenWentBack(
                f"{granted}{self.token} stood under {self.key} before, as this process saw, so the backend was"
                f" restored, rebuilt or replaced. Set fencing_floor to at least {self.token} for every instance"
            )
        who = f"{self.record.instance} on {self.record.host}"
        return TokenWentBack(
            f"{granted}the record of {who} under {self.key} says that {self.token} was there before. Delete that key if"
            " it is not true. If it is, the backend was restored, rebuilt or replaced, or fencing_floor was taken away:"
            " set it, for every instance, above every token that was ever led with"
        )
