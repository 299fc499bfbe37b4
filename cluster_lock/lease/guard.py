"""The lower two of the three layers that stop the work when the loop does not: a thread, and under it a kernel timer.

The loop cancels the work at `stop_at`. Some of it may still run `GUARD_BEFORE` seconds before the deadline, because it
swallowed its cancellation, runs in a thread, or blocks the loop. Then the process ends here, with exit code 70. If even
the thread cannot run (GIL held, process stopped), the timer ends the process at the deadline
(docs/design.md#three-layers).

The question is never whether the loop is blocked, only whether somebody said `done()`. The thread takes no lock that
another thread could hold, and no logger: a logging handler that is stuck in a full pipe holds its lock for ever.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn, Protocol

from cluster_lock import clock
from cluster_lock.values import GUARD_BEFORE

from .kernel_timer import DeadlineTimer, open_timer

EXIT_GUARD = 70
"""What the guard thread ends the process with. The timer below it ends it with SIGKILL."""

_LOOK_EVERY = 0.5
"""Waits run on the monotonic clock and deadlines on the boot clock: after a suspend a long wait would be late by it."""

_LAST_WORDS = 0.05
"""How long the last line may take to be written."""


class GuardWatch(Protocol):
    """One piece of work that must not run past its deadline. Any thread may call it."""

    def move(self, deadline: float) -> None:
        """The lease was renewed: the work may go on until `deadline` (`clock.now()`). Does nothing after `done()`."""
        ...

    def done(self) -> None:
        """Nothing of the work runs any more. Idempotent."""
        ...


class Guard:
    """Watches any number of deadlines in this process. Use `process_guard()`: one thread and one timer serve them all.

    Nothing is started before the first `watch`. A forked child starts with nothing to watch: it is not its parent, and
    nobody ends it here.
    """

    def __init__(self) -> None:
        # A plain dict: setting, deleting and copying are one step each, so the thread needs no lock to read it.
        self._deadlines: dict[_WatchedDeadline, float] = {}
        self._thread: threading.Thread | None = None
        self._timer: DeadlineTimer | None = None
        self._armed_at: float | None = None
        self._batches = 0
        # Held by those who call, never by the thread. Reentrant: a signal handler may end the work.
        self._callers = threading.RLock()
        # Not a mutex but a bell: locked means quiet, and ringing it never waits.
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._stderr: int | None = None

    def watch(self, deadline: float, what: str = "the work under a lock") -> GuardWatch:
        """End this process at `deadline` (`clock.now()`) unless the answer's `done()` comes first or `move()` moves it.

        `what` is named in the last line on stderr; no secret.
        """
        watch = _WatchedDeadline(self, what)
        with self._callers:
            self._start()
            self._set(watch, deadline)
        return watch

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """For moving many watches at one renewal: the timer is set once, at the end of the block, and not for each."""
        with self._callers:
            self._batches += 1
            try:
                yield
            finally:
                self._batches -= 1
                self._arm()

    def _start(self) -> None:
        if self._stderr is None:
            # The program may close or reuse number 2 later on. It may also have none, which is no reason to fail.
            with contextlib.suppress(OSError):
                self._stderr = os.dup(2)
        if self._timer is None:
            self._timer = open_timer()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, name="cluster-lock-guard", daemon=True)
            self._thread.start()

    def _set(self, watch: _WatchedDeadline, deadline: float) -> None:
        with self._callers:
            self._deadlines[watch] = deadline
            if watch.over:
                self._deadlines.pop(watch, None)
            self._arm()

    def _remove(self, watch: _WatchedDeadline) -> None:
        with self._callers:
            self._deadlines.pop(watch, None)
            self._arm()

    def _arm(self) -> None:
        if self._batches:
            return
        # A loop, and the timer before the note of it, because a signal handler may call in the middle of this.
        while self._timer is not None and (first := min(self._deadlines.values(), default=None)) != self._armed_at:
            if first is None:
                self._timer.cancel()
                self._armed_at = None
            else:
                self._timer.set(first)
                earlier = self._armed_at is None or first < self._armed_at
                self._armed_at = first
                if earlier:
                    self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _look(self) -> None:
        while True:
            deadlines = self._deadlines.copy()
            now = clock.now()
            if not deadlines:
                self._bell.acquire()
            elif not clock.is_real():  # a test put its own clock in place, and these deadlines were not counted on that
                self._bell.acquire(timeout=_LOOK_EVERY)
            else:
                for watch, deadline in deadlines.items():
                    if now >= deadline - GUARD_BEFORE and self._deadlines.get(watch) == deadline:
                        self._end(watch.what, deadline - now)
                left = min(deadlines.values()) - GUARD_BEFORE - now
                self._bell.acquire(timeout=min(max(left, 0.001), _LOOK_EVERY))

    def _forget(self) -> None:
        """In a forked child: the thread and the timer stayed in the parent, and so did what they watch."""
        for watch in self._deadlines:
            watch.over = True
        if self._stderr is not None:
            os.close(self._stderr)
        Guard.__init__(self)

    def _end(self, what: str, left: float) -> NoReturn:
        end_process(f"{what} still runs {left:.2f} s before the deadline of its lease", self._stderr)


class _WatchedDeadline:
    def __init__(self, guard: Guard, what: str) -> None:
        self.what = what
        self.over = False
        self._guard = guard

    def move(self, deadline: float) -> None:
        if not self.over:
            self._guard._set(self, deadline)

    def done(self) -> None:
        self.over = True
        self._guard._remove(self)


class NoGuard:
    """Watches nothing: threads and kernel timers cannot follow a test's own clock."""

    def watch(self, deadline: float, what: str = "") -> GuardWatch:
        return _Unwatched()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        yield


class _Unwatched:
    def move(self, deadline: float) -> None: ...

    def done(self) -> None: ...


def end_process(why: str, stderr: int | None = 2) -> NoReturn:
    """End this process at once, without any clean-up, with one line on stderr and exit code 70: something still runs
    that must not, and nothing else stopped it.

    The other end of stderr (a full pipe, a socket, a terminal) may block the write. O_NONBLOCK would change the stderr
    of every process that shares it, and opening it anew fails for a socket (journald). So another thread ends the
    process if the write blocks. It is started without the locks that `threading` takes.
    """
    try:
        if stderr is not None:
            line = f"cluster-lock: {why}, so process {os.getpid()} ends now (exit {EXIT_GUARD})\n"
            _thread.start_new_thread(_exit_soon, ())
            os.write(stderr, line.encode(errors="replace"))
    finally:  # also if nobody reads there any more, or no thread is to be had: then without a word
        os._exit(EXIT_GUARD)


def _exit_soon() -> NoReturn:
    time.sleep(_LAST_WORDS)
    os._exit(EXIT_GUARD)


_process_guard = Guard()
_no_guard = NoGuard()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_process_guard._forget)


def process_guard() -> Guard | NoGuard:
    """The guard of this process, or one that does nothing while a test has put its own clock in place."""
    return _process_guard if clock.is_real() else _no_guard
