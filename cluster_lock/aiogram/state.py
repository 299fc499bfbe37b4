"""What can be said about a poller from outside: whether it is deaf, why it waits, what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cluster_lock import clock

from .conflicts import Conflicts
from .window import Window

DEAF_AFTER = 20.0
"""Seconds beyond its poll timeout after which a getUpdates should have ended, well or badly."""


@dataclass(frozen=True, slots=True)
class PollerState:
    """A snapshot. Ages are seconds, None: never.

    `polling`: in a term, and not stepping down. `polling_for`: since the first getUpdates of the term went out.
    `waiting`: the reason of a deliberate wait, which is a sign of life. `last_poll_age`: since a getUpdates ended, well
    or badly; `last_success_age`: well. `deaf`: supposed to poll, not waiting, and none has ended for poll_timeout +
    20 s. `pending`: delivered and not handled. `window_full`: Telegram shows nothing new until a slow handler ends. The
    counters are over all terms; `redelivered`: finished updates that came again and were recognised; `given_up`: those
    lost by `delivery: at_most_once` at the end of a term; `errors`: failed getUpdates by the kind of failure
    ("conflict", "network").
    """

    bot_id: int
    lock: str
    polling: bool
    polling_for: float | None
    waiting: str | None
    last_poll_age: float | None
    last_success_age: float | None
    deaf: bool
    conflicts_60s: int
    storm: bool
    last_error: str | None
    pending: int
    unconfirmed: int
    window_full: bool
    handled: int
    failed: int
    timed_out: int
    redelivered: int
    given_up: int
    errors: Mapping[str, int]


class Facts:
    """Where a poller writes down what it does."""

    def __init__(self, bot_id: int, lock: str, poll_timeout: float) -> None:
        self.bot_id = bot_id
        self.lock = lock
        self.conflicts = Conflicts()
        self.window = Window()
        self.window_full = False
        self.last_error: str | None = None
        self.errors: Counter[str] = Counter()
        self.handled = self.failed = self.timed_out = self.given_up = 0
        self._redelivered = 0
        self._poll_timeout = poll_timeout
        self._polling = False
        self._waiting: str | None = None
        self._first_asked: float | None = None
        self._poll_ended: float | None = None
        self._succeeded: float | None = None
        self._sign_of_life = clock.now()

    def begin(self, window: Window) -> None:
        """A term begins."""
        self._redelivered += self.window.repeated
        self.window, self.window_full = window, False
        self._polling, self._sign_of_life, self._first_asked = True, clock.now(), None

    def end(self) -> None:
        """It takes no more updates."""
        self._polling = False

    def asks(self) -> None:
        """A getUpdates goes out."""
        if self._first_asked is None:
            self._first_asked = clock.now()

    def poll_ended(self, error: str | None = None) -> None:
        now = clock.now()
        self._poll_ended = self._sign_of_life = now
        self.last_error = error
        if error is None:
            self._succeeded = now

    @contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """A deliberate wait."""
        before, self._waiting = self._waiting, reason
        try:
            yield
        finally:
            self._waiting, self._sign_of_life = before, clock.now()

    def snapshot(self) -> PollerState:
        now = clock.now()
        silent = now - self._sign_of_life
        return PollerState(
            bot_id=self.bot_id,
            lock=self.lock,
            polling=self._polling,
            polling_for=now - self._first_asked if self._polling and self._first_asked is not None else None,
            waiting=self._waiting,
            last_poll_age=None if self._poll_ended is None else now - self._poll_ended,
            last_success_age=None if self._succeeded is None else now - self._succeeded,
            deaf=self._polling and self._waiting is None and silent > self._poll_timeout + DEAF_AFTER,
            conflicts_60s=self.conflicts.in_last_minute(now),
            storm=self.conflicts.storm,
            last_error=self.last_error,
            pending=self.window.pending,
            unconfirmed=self.window.unconfirmed,
            window_full=self.window_full,
            handled=self.handled,
            failed=self.failed,
            timed_out=self.timed_out,
            redelivered=self._redelivered + self.window.repeated,
            given_up=self.given_up,
            errors=dict(self.errors),
        )
