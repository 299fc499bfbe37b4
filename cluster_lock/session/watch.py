"""One waiting request for everything that a session wants to hear of.

It keeps the last known state of each name and wakes those that wait for one. It never decides that something is *not*
so from silence: a watch may be blind on a cut-off server, so it is never the only detector of a loss
(docs/design.md#two-detectors).

What it hears may be old: an answer that was long on its way, a watch that catches up. A linearizable read that was sent
when something was known already is not: if it shows an older state, the store itself was set back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from cluster_lock import clock
from cluster_lock.aio import Backoff, end
from cluster_lock.driver import Driver
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.values import Changes, Entry

log = logging.getLogger("cluster_lock.watch")

SLACK = 2.0
"""What a driver may need beyond `at_most` before its wait counts as hung."""
PAUSE = 0.1, 1.0
"""Seconds between two tries, first and longest."""


class Watch:
    """Follows a changing set of names. `heard(entry, asked)` is called for each state that is news, and for each that
    was read; `went_back(why)` when the store is seen to have been set back, before what it says now. `renews()`:
    whether the backend answers others at this time."""

    def __init__(
        self,
        driver: Driver,
        at_most: float,
        heard: Callable[[Entry, int], None],
        went_back: Callable[[str], None],
        renews: Callable[[], bool] = lambda: True,
    ) -> None:
        self._driver = driver
        self._at_most = at_most
        self._heard, self._went_back = heard, went_back
        self._renews = renews
        self.wanted: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._position: object | None = None
        self.news = asyncio.Event()
        """Set, and replaced, at each news: take it, look at `entries`, then wait for it, and nothing is missed."""
        self.entries: dict[str, Entry] = {}
        self.moment = 0
        """Counts what was heard: note it before a request is sent, and its answer can be told from older news."""
        self._known_since: dict[str, int] = {}
        self.refused: BackendRefused | None = None
        """What the backend answered if it has never let us look. A refusal that comes later may be over with the next
        answer, and is told and sat out like any trouble."""
        self._has_heard = False

    @contextmanager
    def following(self, *names: str) -> Iterator[None]:
        """Follow `names` while the block runs."""
        self.follow(*names)
        try:
            yield
        finally:
            self.unfollow(*names)

    def follow(self, *names: str) -> None:
        fresh = [name for name in names if not self.wanted[name]]
        self.wanted.update(names)
        if fresh:
            self._changed.set()

    def unfollow(self, *names: str) -> None:
        self.wanted.subtract(names)
        for name in names:
            if self.wanted[name] <= 0:
                # The waiting request may go on with a name too many; it is narrowed when it ends by itself.
                del self.wanted[name]
                self.entries.pop(name, None)
                self._known_since.pop(name, None)

    def forget(self) -> None:
        """Trust nothing known so far: the next answer is read afresh."""
        self.entries.clear()
        self._known_since.clear()
        self._position = None
        self._changed.set()
        self.wake()

    async def read(self, names: Collection[str]) -> Changes:
        """One linearizable read, which is taken in."""
        asked = self.moment
        changes = await self._driver.read(names)
        self.take(changes.entries, asked)
        return changes

    def take(self, entries: Mapping[str, Entry], asked: int = -1) -> None:
        """Take in what the backend says about some names, from whichever request. `asked`: the `moment` at which the
        linearizable read was sent that this is the answer to. Other news than of that kind may be old: it is dropped
        then."""
        self._has_heard, self.refused = True, None
        older = [entry for entry in entries.values() if self._is_older(entry)]
        if (proof := next((one for one in older if self._known_since[one.name] <= asked), None)) is not None:
            before = self.entries[proof.name].index
            self.set_back(f"{proof.name} was known to have changed at {before}, it is at {proof.index}")
        told = False
        for name, entry in entries.items():
            known = self.entries.get(name)
            if self._is_older(entry):
                continue
            if name in self.wanted:
                if known is None or known.index != entry.index:
                    self._known_since[name] = self.tick()
                self.entries[name] = entry
            is_news = known is None or (entry.lease, entry.index) != (known.lease, known.index)
            told = told or is_news
            if is_news or asked >= 0:  # who asks may have missed something, or have left something undone
                self._heard(entry, asked)
        if told:  # a waiter that reads what it knows already must not wake itself
            self.wake()

    def hear_again(self, name: str) -> None:
        """Tell what is known of `name` once more, as news."""
        if (known := self.entries.get(name)) is not None:
            self._heard(known, -1)

    def tick(self) -> int:
        """Something is known from now on: the new `moment`, which no request has that is under way already."""
        self.moment += 1
        return self.moment

    def set_back(self, why: str) -> None:
        """The store is older than it was. Nothing that was known of it counts any more."""
        self.forget()
        self._went_back(why)

    def _is_older(self, entry: Entry) -> bool:
        known = self.entries.get(entry.name)
        return known is not None and entry.index < known.index

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
        backoff, failing, failing_since, said = Backoff(*PAUSE), False, 0.0, False
        while True:
            if failing:
                await asyncio.sleep(backoff.next())
            self._changed.clear()
            if not self.wanted:
                await self._changed.wait()
                continue
            try:
                await self._hear(frozenset(self.wanted))
            except (BackendUnavailable, BackendRefused) as error:
                # A backend that is down is told of by the task that asks for the lease, and once is enough.
                if not failing or not self._renews():
                    failing_since = clock.now()
                silent = clock.now() - failing_since
                if not said and (isinstance(error, BackendRefused) or silent > self._at_most):
                    said = True
                    log.warning("cannot watch the locks (for %.0f s), trying on: %s", silent, error)
                failing = True
                if isinstance(error, BackendRefused) and not self._has_heard:
                    self.refused = error
                    self.wake()
            else:
                failing = said = False
                backoff.reset()

    async def _hear(self, names: frozenset[str]) -> None:
        """One answer of the backend: what is not known yet is read, then we wait."""
        unknown = [name for name in names if name not in self.entries]
        if unknown and self._position is not None:
            await self.read(unknown)
        # From the older position, so that nothing is missed; what the read told already is told twice.
        request = asyncio.ensure_future(self._driver.wait_changed(names, self._position, self._at_most))
        widened = asyncio.ensure_future(self._changed.wait())
        try:
            done, _ = await asyncio.wait(
                (request, widened), timeout=self._at_most + SLACK, return_when=asyncio.FIRST_COMPLETED
            )
            if request in done:
                changes = request.result()
                older = [entry.name for entry in changes.entries.values() if self._is_older(entry)]
                self.take(changes.entries)
                position, self._position = self._position, changes.position
                if older:  # a watch that catches up, or that goes on in a store that was set back
                    try:
                        await self.read(older)
                    except (BackendUnavailable, BackendRefused):
                        self._position = position  # this answer comes again, and with it the question
                        raise
            elif not done:
                raise BackendUnavailable(f"{self._driver.backend} did not answer in time")
        finally:
            await end((request, widened))
            if not request.cancelled():
                request.exception()  # given up: what it would have told is asked again from the same position
