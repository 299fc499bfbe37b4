"""One waiting request for everything that a session wants to hear of.

It keeps the last known state of each name and wakes whoever waits for one. It never decides that something is *not* so
from silence: a watch may be blind on a cut-off server (coordination trap 16), so it is never the only detector of a
loss.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from . import clock
from .driver import Driver
from .errors import BackendRefused, BackendUnavailable
from .tasks import end
from .values import Entry

log = logging.getLogger("cluster_lock.watch")

SLACK = 2.0
"""What a driver may need beyond `at_most` before its wait counts as hung."""


class Watch:
    """Follows a changing set of names. `heard(entry)` is called for each state that is news. `renews()`: whether the
    backend answers others at this time."""

    def __init__(
        self,
        driver: Driver,
        at_most: float,
        heard: Callable[[Entry], None],
        renews: Callable[[], bool] = lambda: True,
    ) -> None:
        self._driver = driver
        self._at_most = at_most
        self._heard = heard
        self._renews = renews
        self._wanted: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._position: object | None = None
        self.news = asyncio.Event()
        """Set, and replaced, at each news: take it, look at `entries`, then wait for it, and nothing is missed."""
        self.entries: dict[str, Entry] = {}
        self.refused: BackendRefused | None = None
        """What the backend answered if it does not let us look."""

    @contextmanager
    def following(self, *names: str) -> Iterator[None]:
        """Follow `names` while the block runs."""
        self.follow(*names)
        try:
            yield
        finally:
            self.unfollow(*names)

    def follow(self, *names: str) -> None:
        fresh = [name for name in names if not self._wanted[name]]
        self._wanted.update(names)
        if fresh:
            self._changed.set()

    def unfollow(self, *names: str) -> None:
        self._wanted.subtract(names)
        for name in names:
            if self._wanted[name] <= 0:
                # The waiting request may go on with a name too many; it is narrowed when it ends by itself.
                del self._wanted[name]
                self.entries.pop(name, None)

    def forget(self) -> None:
        """Trust nothing known so far: the next answer is read afresh."""
        self.entries.clear()
        self._position = None
        self._changed.set()
        self.wake()

    def take(self, entries: Mapping[str, Entry]) -> None:
        """Take in what the backend says about some names, from whichever request. Older news than known is dropped."""
        told = False
        for name, entry in entries.items():
            known = self.entries.get(name)
            if name not in self._wanted or (known is not None and entry.index < known.index):
                continue
            self.entries[name] = entry
            if known is None or (entry.lease, entry.index) != (known.lease, known.index):
                told = True
                self._heard(entry)
        if told:  # a waiter that reads what it knows already must not wake itself
            self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self.news.set()
        self.news = asyncio.Event()

    async def changed(self, news: asyncio.Event, at_most: float | None = None) -> None:
        """Wait for news since `news` was taken, or until `at_most` seconds have passed."""
        try:
            async with asyncio.timeout(at_most):
                await news.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Follow until cancelled."""
        pause, failing_since, said = 0.0, 0.0, False
        while True:
            if pause:
                await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            self._changed.clear()
            if not self._wanted:
                await self._changed.wait()
                continue
            try:
                await self._hear(frozenset(self._wanted))
            except (BackendUnavailable, BackendRefused, TimeoutError) as error:
                # A backend that is down is told of by whoever asks for the lease, and once is enough.
                if not pause or not self._renews():
                    failing_since = clock.now()
                silent = clock.now() - failing_since
                if not said and (isinstance(error, BackendRefused) or silent > self._at_most):
                    said = True
                    why = str(error) or "no answer in time"
                    log.warning("cannot watch the locks (for %.0f s), trying on: %s", silent, why)
                pause = min(1.0, pause * 2 or 0.1)
                if isinstance(error, BackendRefused):
                    self.refused = error
                    self.wake()
            else:
                pause, said, self.refused = 0.0, False, None

    async def _hear(self, names: frozenset[str]) -> None:
        """One answer of the backend: what is not known yet is read, then we wait."""
        unknown = [name for name in names if name not in self.entries]
        if unknown and self._position is not None:
            async with asyncio.timeout(self._at_most):
                self.take((await self._driver.read(unknown)).entries)
        # From the older position, so that nothing is missed; what the read told already is told twice.
        request = asyncio.ensure_future(self._driver.wait_changed(names, self._position, self._at_most))
        widened = asyncio.ensure_future(self._changed.wait())
        try:
            done, _ = await asyncio.wait(
                (request, widened), timeout=self._at_most + SLACK, return_when=asyncio.FIRST_COMPLETED
            )
            if request in done:
                changes = request.result()
                self.take(changes.entries)
                self._position = changes.position
            elif not done:
                raise TimeoutError
        finally:
            await end((request, widened))
            if not request.cancelled():
                request.exception()  # given up: what it would have told is asked again from the same position
