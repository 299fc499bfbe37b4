"""What the session of advisory locks has for a lease, and what people hear of what it has lost for long."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from cluster_lock import clock

from .texts import shown_names

log = logging.getLogger("cluster_lock.drivers")

_LONG = 0.9
"""Of a ttl. Somebody looks at each renewal; the third one may come a moment early."""


@dataclass(eq=False, slots=True)
class Holding:
    """What the session has, or is to have, for a lease."""

    name: str
    key: int
    lease: str
    had: bool
    """By this session, at the server. If not, the row guards alone until the session has it again."""
    index: int = 0
    """Of the grant; 0 as long as none is known."""
    since: float = math.inf
    """The moment since which no request for the row is under way: only a later look says whether the row is ours."""
    lost: float = field(default_factory=clock.now)
    """The moment since which the session has it not, where it has it not."""
    is_told: bool = False
    """Do people know that it is lost?"""

    def lose(self) -> None:
        if self.had:
            self.had, self.lost = False, clock.now()


def overdue(holdings: Iterable[Holding], ttl: float) -> list[Holding]:
    """Those that have been lost for about a ttl, of which nobody was told."""
    now = clock.now()
    return [held for held in holdings if not held.had and not held.is_told and now - held.lost >= _LONG * ttl]


def tell_lost(holdings: Collection[Holding], why: str) -> None:
    for held in holdings:
        held.is_told = True
    if holdings:
        log.warning(
            "the advisory lock of %s was lost %.0f s ago and is not to be had again, trying on; until then the lease"
            " row alone is sure to keep others out: %s",
            shown_names([held.name for held in holdings]),
            clock.now() - min(held.lost for held in holdings),
            why,
        )


def tell_had(holdings: Iterable[Holding]) -> None:
    """Of those that people think lost."""
    again = [held for held in holdings if held.is_told]
    for held in again:
        held.is_told = False
    if again:
        log.info("the advisory lock of %s is had again", shown_names([held.name for held in again]))
