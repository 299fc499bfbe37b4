"""Wait for a lock, work under the grant, give it away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster_lock.aio import Backoff, finish
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendUnavailable, ForeignValue, HeldElsewhere, LeaseExpired, StillHeld
from cluster_lock.lease.threads import Threads, watch_threads
from cluster_lock.values import INVITE, LEADER, REQUEST, Entry, Grant, Lease, Origin, Record

from .asked import Asked
from .cancelled_on_loss import CancelledOnLoss
from .context import Context
from .found import Found, ask_contenders
from .hold import Hold, describe
from .reconcile import Reconciler
from .tokens import Evidence
from .told import WaitReport

log = logging.getLogger("cluster_lock.lock")

REFUSED_PAUSE = 0.05, 1.0
"""Seconds, first and longest, between tries while nobody holds the lock and it is not given all the same: the end of
Consul's lock-delay wakes nobody (docs/design.md#lock-delay)."""


class Lock:
    """One lock of one session. Made by `session.lock(name)`."""

    def __init__(self, context: Context, reconciler: Reconciler, name: str) -> None:
        self.name = name
        self.key = LEADER + name
        self._context, self._reconciler = context, reconciler
        self._asked = Asked(lambda: context.identity.record(name).to_bytes())
        self._asked_anew = False

    @asynccontextmanager
    async def hold(self, *, wait: bool = True, settle: bool = True) -> AsyncIterator[Hold]:
        """Wait for the lock and run the block under it; then release it.

        The block is cancelled when the lock can no longer be proved to be held, and LockLost is raised from it. What
        swallows that is ended with the whole process, at the latest at the deadline. `wait=False`: raise HeldElsewhere
        at once if somebody else holds it. Also raises what makes it impossible to get a lease, and TokenWentBack.
        With a lock that was found free the block begins `timing.settle` seconds later: the last holder may hear
        of the loss that much later than we do. `settle=False`: for a block that does no harm beside another one.
        What the block put into threads (`asyncio.to_thread`) is waited for before the lock is given away; on a loss the
        deadline is its limit.
        """
        watch_threads(asyncio.get_running_loop())
        threads, hold = Threads(), await self.acquire(wait=wait)
        try:
            async with CancelledOnLoss(hold):
                await asyncio.sleep(self._context.timing.settle_left(hold.origin, hold.since) if settle else 0)
                with threads.current():
                    yield hold
        finally:
            await finish(_end(hold, threads))

    async def acquire(self, *, wait: bool = True, listens: bool = False) -> Hold:
        """The same without a block and without settling: the caller waits `timing.settle_left` himself, ends all work
        when `hold.lost`, and calls `hold.end` after it. `listens`: follow what people ask of its holder."""
        claims, watch = self._context.claims, self._context.watch
        turn = claims.turn(self.key)
        if not wait and turn.locked():
            raise HeldElsewhere(f"{self.name} is held in this process")
        async with turn:
            # The turn is over when the hold is in `holds`; the next in this process then waits for its end here.
            while self.key in claims.holds:
                if not wait:
                    raise HeldElsewhere(f"{self.name} is held in this process")
                await watch.changed(watch.news)
            if not listens:
                return await self._wait(wait)
            watch.follow(REQUEST + self.name)  # before the grant, so that it costs no request while nobody works
            try:
                hold = await self._wait(wait)
            except BaseException:
                watch.unfollow(REQUEST + self.name)
                raise
            hold.listens = True
            return hold

    async def _wait(self, wait: bool) -> Hold:
        context, contender = self._context, self._context.contender
        try:
            with (
                context.claims.taking(self.key),
                context.watch.following(self.key, INVITE + self.name, contender.key),
            ):
                hold = await self._take(wait)
        except BaseException:
            await finish(self._stop_waiting())
            raise
        if self.name in contender:
            contender.withdraw(self.name)
            context.background.later(contender.write())
        return hold

    async def _stop_waiting(self) -> None:
        """First the contender record goes, so that nothing more is transferred to us; then the lock is looked at once
        more (docs/design.md#stop-waiting). Bounded by the time of one request: a process that ends has no more."""
        contender, touched = self._context.contender, self._context.touched
        is_touched = touched.has_touched(self.key)
        if is_touched:
            touched.doubt(self.key)

        async def leave() -> None:
            if self.name in contender:
                contender.withdraw(self.name)
                await contender.write()
            if is_touched:
                await self._reconciler.look([self.key])

        try:
            await within(self._context.timing.request, self._context.driver.backend, leave())
        except BackendUnavailable as error:
            log.debug("%s: looking again with the next renewal: %s", self.name, error)

    async def _take(self, wait: bool) -> Hold:
        context, watch = self._context, self._context.watch
        backoff, told = Backoff(*REFUSED_PAUSE), WaitReport(context, self.name)
        try:
            while True:
                lease = await context.lease.get()
                news = watch.news
                free = self._is_free(lease)
                if free and (hold := await self._try(lease, told, wait)) is not None:
                    return hold
                entry = watch.entries.get(self.key)
                if entry is not None and entry.lease not in (None, lease.id):
                    if not wait:
                        raise HeldElsewhere(f"{self.name} is held by {describe(entry)}")
                    self._asked.over()
                    told.held(entry)
                if entry is None and watch.refused is not None:
                    raise watch.refused
                self._contend()
                if free:
                    await watch.changed(news, at_most=backoff.next())
                else:
                    backoff.reset()
                    await watch.changed(news)
        finally:
            told.over()

    def _is_free(self, lease: Lease) -> bool:
        """As far as is known: nobody else holds it."""
        entry = self._context.watch.entries.get(self.key)
        return entry is None or entry.lease in (None, lease.id)

    def _contend(self) -> None:
        contender = self._context.contender
        if self.name not in contender:
            contender.wait_for(self.name)
            self._context.background.later(contender.write())

    async def _try(self, lease: Lease, told: WaitReport, wait: bool) -> Hold | None:
        """One attempt; what keeps the lock from us is told."""
        try:
            hold = await self._attempt(lease)
        except ForeignValue as error:
            self._asked.over()
            if not wait:
                raise
            told.foreign(error)
            return None
        except BackendUnavailable as error:
            if isinstance(error, StillHeld) and not wait:
                raise HeldElsewhere(str(error)) from error
            told.unanswered(error)
            return None
        if hold is None:
            told.over()
        return hold

    async def _attempt(self, lease: Lease) -> Hold | None:
        """One attempt to make the lock ours, or to see that it has become ours."""
        context, entry = self._context, self._context.watch.entries.get(self.key)
        # As of now: what is heard later may be of later grants.
        known = Evidence(context.identity.tokens.of(self.name), self.key)
        context.touched.touch(self.key)
        try:
            found = await (self._confirm(lease) if entry is not None and entry.lease == lease.id else self._ask(lease))
        except LeaseExpired as error:
            context.lease.note_expired(lease, error)
            return None
        if found is None:
            return None
        if context.touched.is_over(found.grant):
            # Its release is under way: not answered yet, or never to be, and it may still arrive.
            await self._reconciler.give_back(found.grant, context.identity.record(self.name).to_bytes())
            return None
        evidence = await self._evidence(found, known)
        if context.lease.current != found.grant.lease:
            return None  # the grant goes with its lease (docs/design.md#grant-of-an-old-lease)
        if evidence is not None:
            await self._refuse(found, evidence)
            return None
        return await self._hold(found)

    async def _ask(self, lease: Lease) -> Found | None:
        grant = await self._context.driver.acquire(lease, self.key, self._asked.record(lease.id))
        if grant is None:
            return None
        self._asked.over()
        last = Record.from_bytes(grant.previous or b"")
        origin = Origin.FOUND_FREE
        if last is not None and last.released:
            heard_of = self._context.identity.tokens.largest(self.name) == last.known(self.name)
            origin = Origin.RELEASED if heard_of else Origin.RELEASED_EARLIER
        return Found(
            grant, origin, last, grant.previous or b"", was_there=not self._asked.wrote(lease.id, grant.record)
        )

    async def _confirm(self, lease: Lease) -> Found | None:
        """The watch says that the lock stands under our lease: a leader gave it to us, an acquire of ours came late, or
        the store was set back. One linearizable read, no write (docs/design.md#heir-reads)."""
        entry = self._context.watch.entries[self.key]
        if not self._was_just_read(entry):
            entry = (await self._context.watch.read([self.key])).entries[self.key]
        if entry.lease != lease.id or entry.record is None:
            return None
        grant = Grant(self.key, lease, entry.index, entry.index, entry.record)
        record = Record.from_bytes(entry.record)
        origin = Origin.HANDED_OVER if _is_given(entry) else Origin.FOUND_FREE
        # What our own record says we knew before; one that was given to us holds the giver's token.
        was_there = not self._asked.wrote(lease.id, entry.record)
        return Found(grant, origin, record, entry.record, was_there)

    def _was_just_read(self, entry: Entry) -> bool:
        """Has the wait that told of it read it? What was given to us once, and is over, may be old news of ours."""
        traits, touched = self._context.driver.traits, self._context.touched
        return traits.linearizable_waits and _is_given(entry) and not touched.is_over(entry)

    async def _evidence(self, found: Found, known: Evidence) -> Evidence | None:
        """What speaks against leading on this grant: somebody knows of a token that is not smaller."""
        context, grant = self._context, found.grant
        try:
            evidence = found.evidence(self.name, context.identity.fencing_floor + grant.token, known)
            if evidence is None and found.origin is not Origin.HANDED_OVER:  # who handed over has led, and had asked
                evidence = await ask_contenders(context, self.name, grant)
        except BaseException:
            await finish(self._reconciler.give_back(grant, self._farewell(found)))
            raise
        return evidence

    async def _refuse(self, found: Found, evidence: Evidence) -> None:
        """Give it back. Raises TokenWentBack, unless it is worth while to ask for another one."""
        context, grant = self._context, found.grant
        token = context.identity.fencing_floor + grant.token
        await self._reconciler.give_back(grant, self._farewell(found, evidence))
        if not found.was_there or self._asked_anew:
            raise evidence.refuse(self.name, context.driver.backend, token)
        # As a store shows it that was set back. What it grants from now on may well be larger.
        self._asked_anew = True
        log.warning("%s stood under our lease, with the token %d: asking for another one", self.name, token)

    async def _hold(self, found: Found) -> Hold | None:
        """The lock in our hands, if it is ours still."""
        watch, grant = self._context.watch, found.grant
        hold = Hold(self._context, grant, found.origin, found.inherited)
        before = watch.entries.get(self.key)
        watch.take({self.key: Entry(self.key, grant.lease.id, grant.index, grant.record)})
        if before is not None:
            hold.heard(before)  # the answer may have come later than news of what became of the grant
        if hold.loss is None:
            return hold
        await hold.end(found.inherited)
        watch.forget()  # is that so, or was the store set back? What it says now counts
        return None

    def _farewell(self, found: Found, evidence: Evidence | None = None) -> bytes:
        """What a grant is given back with that nobody worked under. The word that speaks against it stays as it was."""
        if evidence is not None and evidence.record is not None and evidence.record is found.last:
            return found.last_word
        released = not found.origin.settles
        return self._context.identity.record(self.name, released=released, handover=found.inherited).to_bytes()


def _is_given(entry: Entry) -> bool:
    """Did a leader give it to who holds it?"""
    record = Record.from_bytes(entry.record or b"")
    return record is not None and record.handed_over_by is not None


async def _end(hold: Hold, threads: Threads) -> None:
    await threads.ended()
    await hold.end({})
