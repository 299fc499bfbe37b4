"""What can be said about a poller from outside: whether it is deaf, why it waits, what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cluster_lock import clock
from cluster_lock.telegram.poller_state import PollerState

from .conflicts import Conflicts
from .window import Window

DEAF_AFTER = 20.0
"""Seconds beyond its poll timeout after which a getUpdates should have ended, well or badly."""
FULL_FOR = 1.0
"""Seconds after which a full window is worth a word; a burst of a hundred updates is not."""


class Facts:
    """Where a poller writes down what it does."""

    def __init__(self, bot_id: int, lock: str, poll_timeout: float) -> None:
        self.bot_id = bot_id
        self.lock = lock
        self.conflicts = Conflicts()
        self.window = Window()
        self.full_since: float | None = None
        self.last_error: str | None = None
        self.errors: Counter[str] = Counter()
        self.handled = self.failed = self.timed_out = self.confirmed_early = self.given_up = 0
        self.early_running = 0
        self._redelivered = 0
        self._poll_timeout = poll_timeout
        self._polling = False
        self._waiting: str | None = None
        self._first_asked: float | None = None
        self._poll_ended: float | None = None
        self._succeeded: float | None = None
        self._asked_at = 0.0
        self._failing_since: float | None = None
        """The beginning of the first of those that failed since one went well, in this term."""
        self._sign_of_life = clock.now()

    def begin(self, window: Window) -> None:
        """A term begins."""
        self._redelivered += self.window.repeated
        self.window, self.full_since = window, None
        self._polling, self._sign_of_life, self._first_asked = True, clock.now(), None
        self._failing_since = None

    def end(self) -> None:
        """It takes no more updates."""
        self._polling, self.full_since = False, None

    def asks(self) -> None:
        """A getUpdates goes out."""
        self._asked_at = clock.now()
        if self._first_asked is None:
            self._first_asked = self._asked_at

    def poll_ended(self, error: str | None = None) -> None:
        now = clock.now()
        self._poll_ended = self._sign_of_life = now
        self.last_error = error
        if error is None:
            self._succeeded, self._failing_since = now, None
        elif self._failing_since is None:
            self._failing_since = self._asked_at

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
        silent, too_long = now - self._sign_of_life, self._poll_timeout + DEAF_AFTER
        failing_for = 0.0 if self._failing_since is None else now - self._failing_since
        full_for = now - self.full_since if self.full_since is not None else None
        return PollerState(
            bot_id=self.bot_id,
            lock=self.lock,
            polling=self._polling,
            polling_for=now - self._first_asked if self._polling and self._first_asked is not None else None,
            waiting=self._waiting,
            last_poll_age=None if self._poll_ended is None else now - self._poll_ended,
            last_success_age=None if self._succeeded is None else now - self._succeeded,
            deaf=self._polling and self._waiting is None and silent > too_long,
            failing=self._polling and failing_for > too_long,
            conflicts_60s=self.conflicts.in_last_minute(now),
            storm=self.conflicts.storm,
            last_error=self.last_error,
            pending=self.window.pending,
            unconfirmed=self.window.unconfirmed,
            window_full=full_for is not None and full_for >= FULL_FOR,
            window_full_for=full_for,
            early_running=self.early_running,
            handled=self.handled,
            failed=self.failed,
            timed_out=self.timed_out,
            redelivered=self._redelivered + self.window.repeated,
            confirmed_early=self.confirmed_early,
            given_up=self.given_up,
            errors=dict(self.errors),
        )
