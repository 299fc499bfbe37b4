"""Wait for a lock, work under the grant, give it away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import BackendUnavailable, ForeignValue, HeldElsewhere, LeaseExpired, LockLost, TokenWentBack
from .hold import Hold, describe
from .tasks import finish
from .values import INVITE, LEADER, Entry, Grant, Lease, Origin, Record

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger("cluster_lock.lock")

REFUSED_PAUSE = 0.05, 1.0
"""Seconds, first and longest, between tries while nobody holds the lock and it is not given all the same: the end of
Consul's lock-delay wakes nobody (coordination trap 20)."""


class Lock:
    """One lock of one session. Made by `session.lock(name)`."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self.key = LEADER + name
        self._session = session

    @asynccontextmanager
    async def hold(self, *, wait: bool = True) -> AsyncIterator[Hold]:
        """Wait for the lock and run the block under it; then release it.

        The block is cancelled when the lock can no longer be proved to be held, and LockLost is raised from it. What
        swallows that is ended with the whole process, at the latest at the deadline. `wait=False`: raise HeldElsewhere
        at once if somebody else holds it. Also raises what makes it impossible to get a lease, and TokenWentBack.
        With `hold.origin` FOUND_FREE something of the holder before may still be on its way; the fencing token refuses
        it.
        """
        hold = await self.acquire(wait=wait)
        try:
            async with _CancelledOnLoss(hold):
                yield hold
        finally:
            await finish(hold.end({}))

    async def acquire(self, *, wait: bool = True) -> Hold:
        """The same without a block: the caller ends all work when `hold.lost`, and calls `hold.end` after it."""
        turn = self._session.turns[self.key]
        if not wait and turn.locked():
            raise HeldElsewhere(f"{self.name} is held in this process")
        async with turn:
            # The turn is over when the hold is in `holds`; the next in this process then waits for its end in `_take`.
            while self.key in self._session.holds:
                if not wait:
                    raise HeldElsewhere(f"{self.name} is held in this process")
                await self._session.watch.changed(self._session.watch.news)
            return await self._wait(wait)

    async def _wait(self, wait: bool) -> Hold:
        session = self._session
        session.claimed.add(self.key)
        try:
            with session.watch.following(self.key, INVITE + self.name):
                hold = await self._take(wait)
        except BaseException:
            session.claimed.discard(self.key)
            await finish(self._stop_waiting())
            raise
        session.claimed.discard(self.key)
        if self.name in session.contender:
            session.contender.withdraw(self.name)
            session.later(session.contender.write())
        return hold

    async def _stop_waiting(self) -> None:
        """First the contender record goes, so that nothing more is transferred to us; then the lock is looked at once
        more (interleaving M2). Bounded by the time of one request: whoever ends a process has not more for it."""
        session = self._session
        touched = session.reconciler.has_touched(self.key)
        if touched:
            session.reconciler.doubt(self.key)
        try:
            async with asyncio.timeout(session.timing.request):
                if self.name in session.contender:
                    session.contender.withdraw(self.name)
                    await session.contender.write()
                if touched:
                    await session.reconciler.look([self.key])
        except TimeoutError:
            log.debug("%s: no answer in time, looking again with the next renewal", self.name)

    async def _take(self, wait: bool) -> Hold:
        session, watch = self._session, self._session.watch
        pause, named, holder = REFUSED_PAUSE[0], "", ""
        record: tuple[str, bytes] | None = None
        while True:
            lease = await session.lease()
            news = watch.news
            entry = watch.entries.get(self.key)
            free = entry is None or entry.lease in (None, lease.id)
            if free:
                if record is None or record[0] != lease.id:
                    record = lease.id, session.record().to_bytes()
                try:
                    if (hold := await self._attempt(lease, entry, record[1])) is not None:
                        return hold
                except ForeignValue as error:
                    if not wait:
                        raise
                    if str(error) != named:
                        named = str(error)
                        log.error("nobody can lead %s until a person acts: %s", self.name, error)
                except BackendUnavailable as error:
                    log.debug("%s: no answer to the acquire, trying again: %s", self.name, error)
                entry = watch.entries.get(self.key)
            if entry is not None and entry.lease not in (None, lease.id):
                if not wait:
                    raise HeldElsewhere(f"{self.name} is held by {describe(entry)}")
                if (whom := describe(entry)) != holder:
                    log.info("%s: waiting, held by %s", self.name, whom)
                    holder = whom
            if entry is None and watch.refused is not None:
                raise watch.refused
            if self.name not in session.contender:
                session.contender.wait_for(self.name)
                session.later(session.contender.write())
            if free:
                await watch.changed(news, at_most=random.uniform(0.5, 1.0) * pause)
                pause = min(REFUSED_PAUSE[1], pause * 2)
            else:
                pause = REFUSED_PAUSE[0]
                await watch.changed(news)

    async def _attempt(self, lease: Lease, entry: Entry | None, record: bytes) -> Hold | None:
        """One attempt to make the lock ours, or to see that it has become ours."""
        session = self._session
        try:
            async with asyncio.timeout(session.timing.request):
                if entry is not None and entry.lease == lease.id:
                    session.reconciler.touch(self.key)
                    seen = 0  # all that counts stands in the record, which was written before the grant
                    grant, origin, last = await self._confirm(lease)
                else:
                    # As of now: what is heard later may be of later grants, of other locks too.
                    seen = session.reconciler.asks(self.key)
                    grant = await session.driver.acquire(lease, self.key, record)
                    session.reconciler.is_answered(self.key)
                    last = Record.from_bytes(grant.previous or b"") if grant is not None else None
                    origin = Origin.RELEASED if last is not None and last.released else Origin.FOUND_FREE
                if grant is not None and session.reconciler.is_over(grant):
                    # Its release is under way: not answered yet, or never to be, and it may still arrive.
                    await session.driver.release(grant, session.record().to_bytes())
                    session.reconciler.gave_away(grant)
                    return None
        except LeaseExpired as error:
            session.expired(lease, error)
            return None
        except TimeoutError as error:
            raise BackendUnavailable(f"{session.driver.backend} did not answer in time") from error
        if grant is None or session.current_lease != lease:
            return None  # a lease that ended meanwhile takes what it was given along (coordination trap 25)
        token = session.fencing_floor + grant.token
        seen = max(seen, last.seen if last is not None else 0)
        inherited = last.handover if last is not None and origin is not Origin.FOUND_FREE else {}
        hold = Hold(session, grant, origin, inherited)
        if token <= seen:
            await hold.end(inherited)
            raise token_went_back(self.name, session.driver.backend, token, seen)
        if (known := session.watch.entries.get(self.key)) is not None:
            hold.heard(known)  # the answer may have come later than news of what became of the grant
        if hold.loss is None:
            return hold
        await hold.end(inherited)
        session.watch.forget()  # is that so, or was the store set back? What it says now counts
        return None

    async def _confirm(self, lease: Lease) -> tuple[Grant | None, Origin, Record | None]:
        """The watch says that the lock stands under our lease: a leader gave it to us, or an acquire of ours came late.
        One linearizable read, no write (interleaving S2)."""
        session = self._session
        entry = (await session.driver.read([self.key])).entries[self.key]
        session.watch.take({self.key: entry})
        if entry.lease != lease.id or entry.record is None:
            return None, Origin.FOUND_FREE, None
        grant = Grant(self.key, lease, entry.index, entry.index, entry.record)
        record = Record.from_bytes(entry.record)
        given = record is not None and record.handed_over_by is not None
        # `seen` in our own record is what we knew before; in a record that was given to us it holds the giver's token.
        return grant, Origin.HANDED_OVER if given else Origin.FOUND_FREE, record


def token_went_back(name: str, backend: str, token: int, seen: int) -> TokenWentBack:
    return TokenWentBack(
        f"{name}: {backend} granted the fencing token {token}, but {seen} was seen before: it was restored, rebuilt or"
        f" replaced. Nobody leads on it. Set fencing_floor to at least {seen} for every instance"
    )


class _CancelledOnLoss:
    """Cancels the task inside when the hold is lost, and turns that cancellation into LockLost, as asyncio.timeout does
    with its own."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._fired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._watching = asyncio.ensure_future(self._fire())
        return self

    async def _fire(self) -> None:
        await self._hold.wait_lost()
        self._fired = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        ours = self._fired and self._task.uncancel() <= self._cancelling
        cancelled_by_us = ours and kind is not None and issubclass(kind, asyncio.CancelledError)
        # Also when the block ended well after all: its last part ran without the lock.
        if self._hold.loss is not None and (kind is None or cancelled_by_us):
            raise LockLost(f"{self._hold.name}: {self._hold.loss}") from error
