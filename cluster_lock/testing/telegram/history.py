"""What happened, as the oracle writes it down: polls, updates, conflicts. All times are the host's boot clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .bot_key import BotKey

End = Literal["open", "answered", "disconnected", "dropped"]


@dataclass(eq=False, slots=True)
class Poll:
    """One getUpdates, from its arrival to its answer or to the moment its connection was seen closed."""

    bot: BotKey
    client: str
    arrived: float
    term: int | None = None
    """The fencing token under which the client says it sent this, if it says so."""
    sent: float | None = None
    """The client's own record of its write, if it gives one."""
    ended: float | None = None
    end: End = "open"
    status: int | None = None
    conflict: str | None = None
    """The text of the 409 that answered it."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """What it asked for: `offset`, `limit`, `timeout`, `allowed_updates`, as they were sent."""
    received: int = 0
    """How many updates its answer brought."""
    evicted: float | None = None
    """When another request took its place as the bot's parked poll: from then on it can receive no update."""


@dataclass(frozen=True, slots=True)
class Delivery:
    client: str
    term: int | None
    at: float


@dataclass(eq=False, slots=True)
class Run:
    """One run of the bot's handler, as the bot reports it."""

    client: str
    term: int | None
    start: float
    end: float | None = None
    outcome: str | None = None

    @property
    def finished(self) -> bool:
        """True when the handler came to its end. A cancelled one did not: its update has to come again."""
        return self.end is not None and self.outcome != "cancelled"


@dataclass(eq=False, slots=True)
class Update:
    """One update and all that became of it."""

    bot: BotKey
    update_id: int
    chat: int
    seq: int
    """Counts the updates of this chat in the order in which they were pushed, from 1."""
    pushed: float
    ordered: bool = True
    """False: a query, which may overtake others."""
    delivered: list[Delivery] = field(default_factory=list)
    acked: Delivery | None = None
    """Whose getUpdates removed it: a higher offset, a negative one, or drop_pending_updates."""
    gone: str | None = None
    """Why the server removed it by itself: "expired" or "renumbered"."""
    runs: list[Run] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        return self.acked is None and self.gone is None

    @property
    def finished_runs(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def first_start(self) -> float | None:
        return min((run.start for run in self.runs), default=None)
