"""What the pollers say of themselves, whether they work in this process or in a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster_lock import clock
from cluster_lock.telegram.poller_state import GROWING, UNTOLD

from .totals import Totals

PollerStates = Sequence[Mapping[str, Any]]
"""The fields of `PollerState`, or some of them."""


class PollerFacts:
    """`source`: where the states come from if the pollers work in this process; else `tell` brings them. `totals`: of
    what they count."""

    def __init__(self, shown: Callable[[str], str], polls: Callable[[str, float], None]) -> None:
        """`shown(text)`: a text that may be shown. `polls(lock, since)` is called with the moment since which a lock's
        bot is polled."""
        self.source: Callable[[], PollerStates] | None = None
        self.totals = Totals()
        self._shown, self._polls = shown, polls
        self._told: PollerStates = ()
        self._told_at = clock.now()

    def tell(self, states: PollerStates) -> None:
        """The newest states of a worker's pollers."""
        self._told, self._told_at = states, clock.now()
        self._take(states)

    def forget(self) -> None:
        """The worker is gone, and its pollers with it."""
        self._told = ()

    def look(self) -> None:
        """Take in what those of this process do."""
        if self.source is not None:
            self._take(self.source())

    def states(self) -> list[dict[str, Any]]:
        """The states as of now, ages too, fit to be shown."""
        if self.source is not None:
            states, age = self.source(), 0.0
            self._take(states)
        else:
            states, age = self._told, clock.now() - self._told_at
        shown = []
        for state in states:
            older = {name: state[name] + age for name in GROWING if state.get(name) is not None}
            texts = {name: self._shown(value) for name, value in state.items() if isinstance(value, str)}
            shown.append({**UNTOLD, **state, **older, **texts})
        return shown

    def _take(self, states: PollerStates) -> None:
        self.totals.take(states)
        for state in states:
            # A poller that settles has not begun: it says None.
            since = state.get("polling_for", 0.0 if state.get("polling") else None)
            if since is not None:
                self._polls(str(state.get("lock")), clock.now() - since)
