"""What may come to stand under our lease although nobody waits for it, and what is known of our grants.

Plain bookkeeping: `reconcile` acts on it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from cluster_lock import clock
from cluster_lock.values import Entry, Grant, Timing

from .watch import Watch

MANY = 128
"""Locks. Of more that were ever touched under one lease the names are not kept: then all locks are looked at."""


class Touched:
    """Every key that an acquire of ours may still arrive at. `unsure`: those to be read with each renewal."""

    def __init__(self, watch: Watch, timing: Timing) -> None:
        self.unsure: set[str] = set()
        self._watch, self._timing = watch, timing
        self._at: dict[str, float] = {}
        self._ever: set[str] = set()
        """What was ever touched under this lease: no request is so old that it could not come yet."""
        self._unread: dict[str, float] = {}
        """By key in doubt: since when nobody could look at it."""
        self._unreleased: dict[str, float] = {}
        """By key: since when a release is not confirmed."""
        self._farewells: dict[str, tuple[int, bytes]] = {}
        """By key: the index of that grant, and the last word that its release was to leave."""
        self._given: dict[str, tuple[int, int]] = {}
        """By key: the index of the latest grant that we gave away, and the `moment` of the watch when we knew. What is
        older is news of that one."""
        self._over: dict[str, int] = {}
        """By key: the index of the latest grant that nobody may work under, whether or not it is known to be given
        away."""

    def touch(self, key: str) -> None:
        """An acquire of `key` is on its way: listen for it, even if the caller goes away."""
        if key not in self._at:
            self._watch.follow(key)
        self._at[key] = clock.now()
        if len(self._ever) <= MANY:
            self._ever.add(key)

    def has_touched(self, key: str) -> bool:
        """May an acquire of `key` still be under way?"""
        return key in self._at

    @property
    def ever(self) -> set[str] | None:
        """What was ever touched under this lease. None: too many to be known by name."""
        return self._ever if len(self._ever) <= MANY else None

    def begin_lease(self) -> None:
        """There is another lease: what stood under the one before is no business of ours."""
        self.unsure.clear()
        self._unread.clear()
        self._unreleased.clear()
        self._farewells.clear()
        self._ever = set(self._at)

    def forget_indexes(self) -> None:
        """The store was set back: an index says nothing any more about what came before what, and anything may stand
        under our lease again."""
        self._given.clear()
        self._over.clear()
        self._farewells.clear()
        for key in self._at:
            self._note_doubt(key)

    def doubt(self, key: str) -> None:
        """Nobody knows whether `key` is under our lease: the next renewal, or the watch, finds out."""
        self.touch(key)
        self._note_doubt(key)

    def note_read(self, keys: Iterable[str]) -> None:
        """These were looked at: what stands there is known."""
        for key in keys:
            self._unread.pop(key, None)

    def end(self, grant: Grant) -> None:
        """Nobody works under this grant any more, or ever did; nobody will."""
        self._over[grant.name] = grant.index

    def is_over(self, grant: Grant | Entry) -> bool:
        """Is this a grant, or one that stands there, that nobody may work under?"""
        return grant.index == self._over.get(grant.name)

    def note_given(self, grant: Grant) -> None:
        """The backend has confirmed that this grant is over."""
        self._given[grant.name] = grant.index, self._watch.tick()
        self.note_elsewhere(grant.name)

    def note_unreleased(self, grant: Grant, farewell: bytes) -> None:
        """A release of this grant was not confirmed: the next renewals look after it."""
        self._unreleased.setdefault(grant.name, clock.now())
        self._farewells[grant.name] = grant.index, farewell
        self.doubt(grant.name)

    def farewell(self, grant: Grant) -> bytes | None:
        """What an earlier release of this grant was to leave, if that is not confirmed."""
        index, farewell = self._farewells.get(grant.name, (0, None))
        return farewell if index == grant.index else None

    def note_elsewhere(self, key: str) -> None:
        """`key` does not stand under our lease."""
        self._unreleased.pop(key, None)
        self._farewells.pop(key, None)

    def is_old(self, entry: Entry) -> bool:
        """Is this news about a grant that we gave away since?"""
        index, _ = self._given.get(entry.name, (0, 0))
        return entry.index <= index

    def is_back(self, entry: Entry, asked: int) -> bool:
        """Does a grant stand there, as of a read that was sent at `asked`, that was known then to be given away? So it
        does in a store that was set back."""
        given = self._given.get(entry.name)
        return given is not None and entry.index <= given[0] and given[1] <= asked

    def stuck(self) -> str | None:
        """What keeps a key under our lease, or may keep it there, for a whole ttl: the backend confirms no release of
        it, or lets nobody look at it."""
        long_ago = clock.now() - self._timing.ttl
        for done, since_when in (("released", self._unreleased), ("looked at", self._unread)):
            for key, since in since_when.items():
                if since < long_ago:
                    return f"{key} could not be {done} within a ttl"
        return None

    def forget_old(self, in_use: Container[str]) -> None:
        """Follow no longer what was looked at and what no request can be under way to any more. One read that finds
        nothing is no reason: the request may come after it."""
        timing = self._timing
        # A transfer comes when the work of the leader that invited us has ended.
        long_ago = clock.now() - 2 * timing.ttl - timing.drain - timing.cancel_grace
        for key in [key for key, at in self._at.items() if at < long_ago and key not in self._unread]:
            self.unsure.discard(key)
            if key not in in_use:
                del self._at[key]
                self._given.pop(key, None)
                self._over.pop(key, None)
                self._watch.unfollow(key)

    def _note_doubt(self, key: str) -> None:
        self.unsure.add(key)
        self._unread.setdefault(key, clock.now())
