"""Starting again what ended: after a pause that grows, and in words."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from cluster_lock.aio import Backoff
from cluster_lock.errors import NotStarted

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
RAN_WELL = 60.0
"""What ran for so long did not crash at its start."""
_SIGNALS: frozenset[int] = frozenset(signal.Signals)


class StartBackoff:
    """The pauses of one program: each about twice the one before, anew after it has run well."""

    def __init__(self) -> None:
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)

    def after(self, ran: float) -> float:
        """Seconds to wait before the next start, when this one ran for `ran` seconds."""
        if ran > RAN_WELL:
            self._backoff.reset()
        return self._backoff.next()


@contextmanager
def starting(what: str) -> Iterator[None]:
    """For a block that starts a process. Raises NotStarted for what the system says no to: it may say yes later."""
    try:
        yield
    except OSError as error:
        raise NotStarted(f"cannot start {what}: {error.strerror or error}") from error


def spoken(code: int) -> str:
    """An exit status, as a log has it."""
    return f"signal {signal.Signals(code - 128).name}" if code > 128 and code - 128 in _SIGNALS else f"code {code}"
