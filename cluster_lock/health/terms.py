"""One lock as seen from here: our role, the term, and the last terms, ours and others'."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster_lock import clock
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode

from .buckets import Buckets

REMEMBERED = 20
"""Terms of a lock that the page shows."""
SAME_MOMENT = 0.05
"""Seconds by which a worker may have begun before we heard that it leads."""
ENDED = "ended"
"""All that is known of the end of somebody else's term."""
NOT_RELEASED = "not released: the lock was found free"
HANDOVER_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0)
TAKEOVER_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class TermEntry:
    """One line of the timeline. Texts of time are UTC. `term`: the fencing token. `origin`, `ending`, `reason`: how it
    began and ended, None: not yet, or not known here. `seconds`: how long it lasted."""

    term: int
    instance: str
    ours: bool
    began: str
    origin: str | None = None
    ended: str | None = None
    ending: str | None = None
    reason: str | None = None
    seconds: float | None = None
    since: float = field(default_factory=clock.now)

    def end(self, ending: str, reason: str | None) -> None:
        if self.ended is None:
            self.ended, self.ending, self.reason = clock.utc_text(), ending, reason
            self.seconds = clock.now() - self.since

    def shown(self) -> dict[str, Any]:
        content = asdict(self)
        since = content.pop("since")
        return {**content, "seconds": self.seconds if self.ended is not None else clock.now() - since}


class LockFacts:
    """What is known about the lock `name`."""

    def __init__(self, name: str, instance: str) -> None:
        self.name = name
        self.role = "stopped"
        self.term: TermEntry | None = None
        """Our own, while we lead."""
        self.stepping_down: str | None = None
        self.away_until: tuple[float, str] | None = None
        """We do not contend until then, and why."""
        self.blocked: str | None = None
        """Why it cannot be taken although nobody holds it."""
        self.history: deque[TermEntry] = deque(maxlen=REMEMBERED)
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.handovers = Buckets(HANDOVER_BOUNDS)
        self.takeovers: dict[str, Buckets] = {}
        self._instance = instance
        self._asked_at: float | None = None
        self._working = False

    @property
    def leads(self) -> bool:
        return self.term is not None

    def stand_by(self, role: str = "standby") -> None:
        self.role, self.away_until = role, None

    def begin(self, fencing_token: int, origin: str) -> None:
        self._close_for_us(origin)
        self._close(ENDED, None)
        self.term = TermEntry(fencing_token, self._instance, True, clock.utc_text(), origin)
        self.history.append(self.term)
        self.stand_by("leader")
        self.stepping_down, self._asked_at, self._working = None, None, False
        self.transitions["leader", origin] += 1

    def work_began(self, at: float) -> None:
        """The first sign that somebody works under the term. What began before the term is not about it."""
        if self.term is not None and not self._working and at >= self.term.since - SAME_MOMENT:
            self._working = True
            origin = self.term.origin or "unknown"
            self.takeovers.setdefault(origin, Buckets(TAKEOVER_BOUNDS)).add(max(0.0, at - self.term.since))

    def step_down(self, reason: str) -> None:
        self.stepping_down = reason
        self._asked_at = clock.now()

    def end(self, how: Ending, reason: str, code: EndCode, heir: str | None = None) -> None:
        if self.term is not None:
            self.term.end(f"{how} to {heir}" if heir else how.value, reason)
            self.transitions["standby", _label(how, code)] += 1
            if self._asked_at is not None and how is not Ending.LOST:
                self.handovers.add(clock.now() - self._asked_at)
        self.term, self.stepping_down, self._asked_at = None, None, None
        self.stand_by()

    def see(self, leader: Mapping[str, Any] | None) -> bool:
        """Somebody else leads (`instance`, `term`, `since`, `handed_over_by`), or nobody. True if that is news."""
        if self.leads:
            return False
        last = self.history[-1] if self.history else None
        if leader is None:
            if last is None or last.ended is not None:
                return False
            self._close(ENDED, None)
            return True
        token, instance = int(leader.get("term") or 0), str(leader.get("instance") or "unknown")
        if last is not None and last.term >= token:
            return False
        giver = leader.get("handed_over_by")
        self._close(f"handed over to {instance}" if giver and last and giver == last.instance else ENDED, None)
        began = str(leader.get("since") or clock.utc_text())
        since = clock.now() - max(0.0, clock.age_of(began) or 0.0)  # it may have led before we looked
        origin = f"handed over by {giver}" if giver else None
        self.history.append(TermEntry(token, instance, False, began, origin, since=since))
        return True

    def _close_for_us(self, origin: str) -> None:
        """What we know of the end of somebody's term by how we got the lock after it."""
        last = self.history[-1] if self.history else None
        if last is not None and not last.ours and last.ending in (None, ENDED):
            ending = {"handed over": f"handed over to {self._instance}", "found free": NOT_RELEASED}.get(
                origin, "released"
            )
            last.end(ENDED, None)
            last.ending = ending

    def _close(self, ending: str, reason: str | None) -> None:
        if self.history:
            self.history[-1].end(ending, reason)


def _label(how: Ending, code: EndCode) -> str:
    """A term that was lost on the way to its end did not end as it was asked to."""
    if code.is_loss == (how is Ending.LOST):
        return code.value
    return (EndCode.LOST if how is Ending.LOST else EndCode.STEP_DOWN).value
