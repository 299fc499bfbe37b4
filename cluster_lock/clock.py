"""The one clock. Everything here that compares moments or measures durations asks `now()`.

CLOCK_MONOTONIC stands still while a machine sleeps, and a lease does not: after a suspend a holder that counts with it
believes in a lease that ended long ago (docs/design.md#boot-clock). CLOCK_BOOTTIME goes on. All processes of one host
share it, so one process may hand a moment to another. Where it does not exist (macOS, Windows), the monotonic clock
takes its place; whether that one counts sleep is up to the platform.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

if sys.platform == "linux":
    NAME = "CLOCK_BOOTTIME"

    def _boot_time() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    NAME = "monotonic"

    def _boot_time() -> float:
        return time.monotonic()


_source: Callable[[], float] = _boot_time


def now() -> float:
    """Seconds on the host's boot clock. Comparable between processes of this host, meaningless elsewhere."""
    return _source()


def is_real() -> bool:
    """False while a test has put its own clock in place: kernel timers and threads cannot follow that one."""
    return _source is _boot_time


def wall() -> float:
    """Seconds since 1970 by the wall clock, for dates that others have set (a certificate's end); never for a lease."""
    return datetime.now(UTC).timestamp()


def utc_text() -> str:
    """The wall clock for people to read (records, logs); never for a decision."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age_of(moment: str | None) -> float | None:
    """Seconds since a text of `utc_text`, perhaps another host's, by two wall clocks: for people. None if it is
    none."""
    try:
        then = datetime.fromisoformat(moment or "")
        return (datetime.now(UTC) - then).total_seconds()
    except (ValueError, TypeError):
        return None


@contextmanager
def replaced(source: Callable[[], float]) -> Iterator[None]:
    """Let `source` be the clock while the block runs. For tests that own the time."""
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
