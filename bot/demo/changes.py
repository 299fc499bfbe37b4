"""Which change of leader belongs to which fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster_lock.testing.telegram import Change as Passed

Kind = Literal["graceful", "crash", "stall", "backend_restart"]


@dataclass(slots=True, kw_only=True)
class DemoFault:
    """Something that was done to the leader `client` (or to the backend below it), between two moments.

    `term`: the leader's before it. `must_change`: a change of leader has to follow. `words`: what the table and the
    picture call it. `outcome`: what came of it where the leader did not change.
    """

    kind: Kind
    words: str
    client: str
    term: int | None = None
    began: float
    ended: float | None = None
    must_change: bool = True
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoChange:
    """A fault and what followed.

    `gap_ms`: milliseconds from the old leader's last live poll to the new one's first, None where the leader did not
    change. `fault` is None for a change that nobody brought about.
    """

    kind: Kind
    gap_ms: float | None
    passed: Passed | None
    fault: DemoFault | None

    @property
    def at(self) -> float:
        """When the fault came, or the new leader."""
        if self.fault is not None:
            return self.fault.began
        return self.passed.started if self.passed is not None else 0.0

    @property
    def words(self) -> str:
        return self.fault.words if self.fault is not None else "unplanned: the leader could not keep its lease"


def changes_of(faults: Sequence[DemoFault], passed: Iterable[Passed]) -> list[DemoChange]:
    """Each fault with the change that it led to, in order of time; then those that no fault explains are in it too: an
    instance that got no processor for too long loses its lease, which is a stall of nobody's making."""
    left = list(passed)
    result = []
    for fault in faults:
        found = next((change for change in left if _belongs(change, fault)), None)
        if found is not None:
            left.remove(found)
        gap = None if found is None else round(found.gap_ms, 1)
        result.append(DemoChange(kind=fault.kind, gap_ms=gap, passed=found, fault=fault))
    result += [DemoChange(kind="stall", gap_ms=round(each.gap_ms, 1), passed=each, fault=None) for each in left]
    return sorted(result, key=lambda change: change.at)


def _belongs(change: Passed, fault: DemoFault) -> bool:
    in_time = fault.began <= change.started and (fault.ended is None or change.started <= fault.ended)
    return change.old == fault.client and in_time
