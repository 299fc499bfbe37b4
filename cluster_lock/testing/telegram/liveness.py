"""When a client could act, as the harness tells it: a stopped, cut off or dead process can do nothing with its poll."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from .history import Poll


@dataclass(slots=True)
class _Freeze:
    since: float
    until: float = inf


@dataclass(slots=True)
class Life:
    """The life of one client: when it was frozen, when it died and came back, when its terms ended."""

    freezes: list[_Freeze] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    terms: dict[int, float] = field(default_factory=dict)

    def frozen(self, since: float) -> None:
        """It is stopped (SIGSTOP) or cut off from the simulator since then."""
        if not self.freezes or self.freezes[-1].until != inf:
            self.freezes.append(_Freeze(since))

    def thawed(self, at: float) -> None:
        if self.freezes and self.freezes[-1].until == inf:
            self.freezes[-1].until = at

    def died(self, at: float) -> None:
        self.deaths.append(at)
        self.thawed(at)

    def started(self, at: float) -> None:
        """A new process under the same name."""
        self.starts.append(at)
        self.thawed(at)

    def term_ended(self, term: int, at: float) -> None:
        """The earliest word counts: nothing sent under this term after `at` is allowed."""
        self.terms[term] = min(at, self.terms.get(term, inf))

    def is_late(self, poll: Poll) -> bool:
        """True for bytes that outlived their sender (or its term): written before the end, arrived after it.

        A link that was down delivers them when it is back, 6 s after the process was killed (seen).
        """
        ended = self._end_of_term(poll)
        if poll.arrived > ended and (poll.sent is None or poll.sent <= ended):
            return True
        return any(self._is_from_the_dead(poll, death) for death in self.deaths)

    def is_after_its_term(self, poll: Poll) -> bool:
        """True when the client itself says that it wrote this after its term had ended: never allowed."""
        return poll.sent is not None and poll.sent > self._end_of_term(poll)

    def live_spans(self, poll: Poll) -> list[tuple[float, float]]:
        """When this poll could have brought an update to somebody who works on it; `inf` while it is open."""
        if self.is_late(poll):
            return []
        end = min([inf if poll.ended is None else poll.ended, *(d for d in self.deaths if d >= poll.arrived)])
        spans = []
        start = poll.arrived
        for freeze in self.freezes:
            if freeze.until <= start or freeze.since >= end:
                continue
            if freeze.since > start:
                spans.append((start, freeze.since))
            start = freeze.until
            if poll.evicted is not None and poll.evicted <= freeze.until:
                return spans  # it was thawed with a poll that somebody else had ended: nothing can come of it
        if start < end:
            spans.append((start, end))
        return spans

    def _end_of_term(self, poll: Poll) -> float:
        return inf if poll.term is None else self.terms.get(poll.term, inf)

    def _is_from_the_dead(self, poll: Poll, death: float) -> bool:
        if poll.arrived <= death:
            return False
        if poll.sent is not None:
            return poll.sent <= death
        return not any(death <= start <= poll.arrived for start in self.starts)
