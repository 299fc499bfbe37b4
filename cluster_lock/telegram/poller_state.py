"""What a poller reports of itself: the one list of it. The poller fills it in, the keeper's pipe carries it as a plain
mapping, the health page shows it, and the metrics are made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple


class Gauge(NamedTuple):
    """A metric that shows a field as a number. `name`: behind `cluster_lock_`. `text`: its help."""

    name: str
    text: str


def _shown(default: Any, name: str, text: str, *, grows: bool = False) -> Any:
    return field(default=default, metadata={"gauge": Gauge(name, text), "grows": grows})


def _grows() -> Any:
    return field(default=None, metadata={"grows": True})


def _counted() -> Any:
    return field(default=0, metadata={"counted": True})


@dataclass(frozen=True, slots=True)
class PollerState:
    """A snapshot. Ages are seconds; None: never, or not now. The counters are over all terms. The defaults are what a
    poller is taken to be in that it does not say."""

    bot_id: int = 0
    lock: str = "unknown"
    polling: bool = _shown(False, "polling", "1 while it polls.")
    """In a term, and not stepping down."""
    polling_for: float | None = None
    """Since the first getUpdates of the term went out."""
    waiting: str | None = None
    """The reason of a deliberate wait, which is a sign of life."""
    last_poll_age: float | None = _shown(
        None, "last_poll_age_seconds", "Since a getUpdates ended, well or badly.", grows=True
    )
    last_success_age: float | None = _grows()
    """Since a getUpdates ended well."""
    deaf: bool = _shown(False, "deaf", "1 if it should poll and no getUpdates has ended for too long.")
    """Supposed to poll, not waiting, and none has ended for poll_timeout + 20 s."""
    failing: bool = _shown(False, "failing", "1 if it polls, and no getUpdates has succeeded for too long.")
    """For poll_timeout + 20 s all that ended did so badly."""
    conflicts_60s: int = _shown(0, "recent_conflicts", "Conflicts (409) in the last minute.")
    storm: bool = _shown(False, "conflict_storm", "1 while somebody polls outside of the lock.")
    last_error: str | None = None
    pending: int = _shown(0, "updates_pending", "Delivered and not handled.")
    """But for those in `early_running`."""
    unconfirmed: int = _shown(0, "updates_unconfirmed", "Delivered and not confirmed to Telegram.")
    window_full: bool = _shown(False, "window_full", "1 while Telegram shows nothing new until a handler ends.")
    window_full_for: float | None = _grows()
    early_running: int = _shown(
        0, "updates_early_running", "Confirmed before their handlers have ended, which still run."
    )
    handled: int = _counted()
    failed: int = _counted()
    timed_out: int = _counted()
    redelivered: int = _counted()
    """Finished updates that came again and were recognised."""
    confirmed_early: int = _counted()
    """Updates that were confirmed before their handlers had ended."""
    given_up: int = _counted()
    """Updates that were lost at the end of a term: confirmed early, or by `delivery: at_most_once`."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failed getUpdates, by the kind of failure ("conflict", "network")."""


def _names(mark: str) -> tuple[str, ...]:
    return tuple(each.name for each in fields(PollerState) if each.metadata.get(mark))


UNTOLD: Mapping[str, Any] = asdict(PollerState())
"""What a poller is taken to be in that it does not say."""
GROWING = _names("grows")
"""The ages that grow while a poller says nothing new."""
COUNTED = _names("counted")
"""What is counted of updates."""


def gauges() -> Iterator[tuple[str, Gauge]]:
    """The fields that are shown as metrics."""
    for each in fields(PollerState):
        if (gauge := each.metadata.get("gauge")) is not None:
            yield each.name, gauge
