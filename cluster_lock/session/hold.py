"""One grant in our hands, from the moment it is taken to the moment it is given away."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Mapping
from typing import Any

from cluster_lock import clock
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired, LockLost
from cluster_lock.observer import Ending
from cluster_lock.values import LEADER, REQUEST, EndCode, EndReason, Entry, Grant, Origin, Record

from .context import Context
from .invitation import Willing, invite, reply_to
from .requests import Ask, Reply

log = logging.getLogger("cluster_lock.hold")

REFUSAL_PAUSE = 0.5
"""Seconds between two refusals: a caller that asks in a loop does not make the leader write in one."""


class Hold:
    """A lock that this process holds. `lost` is done, with the reason, as soon as it cannot be proved to be held any
    more.

    The caller of `hold` works under it only while it `is_valid`, ends all work when it is lost, and calls `end` exactly
    once, after the last of the work has ended: until then the guard stands ready to end the process at the deadline.
    """

    def __init__(self, context: Context, grant: Grant, origin: Origin, inherited: Mapping[str, Any]) -> None:
        self.key = grant.name
        self.name = grant.name.removeprefix(LEADER)
        self.grant = grant
        self.origin = origin
        self.inherited = inherited
        self.fencing_token = context.identity.fencing_floor + grant.token
        self.loss: EndReason | None = None
        self._lost = asyncio.Event()
        self._context = context
        self.listens = False
        """Requests of people are followed, until this ends."""
        self._giving_away = False
        self.since = clock.now()
        self._stopped_at = context.lease.stop_at
        self._guard = context.guard.watch(context.lease.deadline, f"the work under {self.name}")
        self._ask: Ask | None = None
        self._asker = ""
        """The lease of the last one that asked."""
        self._asked = asyncio.Event()
        self._replied = asyncio.Event()
        self._replied.set()
        self.heir: Entry | None = None
        """The contender that `end` gives it to."""
        self._heir_found_at = self.since
        context.claims.holds[self.key] = self
        context.identity.tokens.note(self.name, self.fencing_token)
        self._known_since = context.watch.tick()
        self.asked(context.watch.entries.get(REQUEST + self.name))

    @property
    def stop_at(self) -> float:
        """The moment at which the work is cancelled unless a renewal moves it on."""
        return self._stopped_at if self.loss is not None else self._context.lease.stop_at

    def is_valid(self) -> bool:
        """Is the lock provably held at this moment?"""
        return self.loss is None and not self._giving_away and clock.now() < self._context.lease.stop_at

    async def wait_lost(self) -> EndReason:
        """Return as soon as the lock cannot be proved to be held any more; why."""
        await self._lost.wait()
        assert self.loss is not None
        return self.loss

    def asked(self, entry: Entry | None) -> None:
        """Somebody may ask for something, of this term or of another one, in which case it is void
        (docs/design.md#requests-name-a-term). A value that was overwritten under our lock moved the index, which is all
        that others see of the token."""
        ask = Ask.of(entry)
        mine = (self.fencing_token, self._context.identity.fencing_floor + self.grant.index)
        if ask is not None and ask.token in mine and ask != self._ask:
            self._ask, self._asker = ask, (entry.lease if entry is not None else None) or ""
            self._asked.set()

    async def wait_asked(self) -> Ask:
        """Return the next request of a person, over the backend, for this very term to end. One that comes too soon
        after another is declined."""
        pace = self._context.pace
        while True:
            await self._asked.wait()
            self._asked.clear()
            assert self._ask is not None
            ask, wait = self._ask, pace.wait(self.name, self._asker)
            if wait <= 0:
                pace.heeded(self.name, self._asker)
                return ask
            self.reply(Reply(ask.number, declined=f"a step-down was asked for a moment ago; again in {wait:.1f} s"))
            await asyncio.sleep(REFUSAL_PAUSE)

    def reply(self, reply: Reply) -> None:
        """Answer such a request. Does not wait, and what comes of it is not known. One after the other: each is taken
        away before the next is given."""
        before, self._replied = self._replied, asyncio.Event()
        self._context.background.later(self._reply(reply, before, self._replied))

    async def _reply(self, reply: Reply, before: asyncio.Event, done: asyncio.Event) -> None:
        try:
            await before.wait()
            await reply_to(self._context, self.name, self.grant, reply)
        finally:
            done.set()

    async def find_heir(self, willing: Willing | None, to: str | None = None) -> str | None:
        """Invite contenders, or `to` alone; the instance that `end` will give the lock to, or None if nobody answered
        (with something for which `willing` is true). From its return on no new work may be taken."""
        self.heir = await invite(self._context, self.name, self.grant, willing, to)
        self._heir_found_at = clock.now()
        record = Record.from_bytes(self.heir.record or b"") if self.heir is not None else None
        return record.instance if record is not None else None

    def moved(self, deadline: float) -> None:
        """The lease was renewed."""
        if self.loss is None:
            self._guard.move(deadline)

    def lose(self, reason: EndReason) -> None:
        """It cannot be proved to be held any more. What still runs after `stop_time` is ended with the process, even if
        the lease itself would have lasted longer: the lock may be somebody else's by now."""
        if self.loss is not None or self._giving_away:
            return
        self._stopped_at = min(self._context.lease.stop_at, clock.now())
        self.loss = reason
        self._lost.set()
        self._guard.move(min(self._context.lease.deadline, clock.now() + self._context.timing.stop_time))

    def heard(self, entry: Entry, asked: int = -1) -> None:
        """News about our key. Older than our grant: from before it, and nothing to us, unless it is the answer to a
        read that was sent (`asked`) after the grant: then the store itself is older than it was."""
        if self._giving_away or self.loss is not None:
            return
        if entry.index < self.grant.token and asked >= self._known_since:
            text = f"the store was set back: {self.name} was granted at {self.grant.token}, it is at {entry.index}"
            self.lose(EndReason(text, EndCode.STORE_SET_BACK))
            self._context.lease.renew_soon()
        elif entry.index < self.grant.index:
            return
        elif entry.lease != self.grant.lease.id:
            whose = f"is held by {describe(entry)}" if entry.lease else "was deleted or given away by the backend"
            self.lose(EndReason(f"the key of {self.name} {whose}", EndCode.KEY_GONE))
            self._context.lease.renew_soon()
        elif entry.index > self.grant.index and entry.record == self.grant.record:
            # Nobody overwrites a value with the same one: it was deleted, and taken again by a copy of our request.
            text = f"the key of {self.name} was deleted for a moment, in which somebody else may have held it"
            self.lose(EndReason(text, EndCode.KEY_GONE))
        elif entry.index > self.grant.index:
            log.warning("%s: somebody overwrote the value under our lock; we still hold it", self.name)
            self.grant = dataclasses.replace(self.grant, index=entry.index)

    async def verify(self) -> None:
        """One linearizable read. Raises LockLost if the lock is not ours, BackendUnavailable or BackendRefused if
        that cannot be known."""
        await self._context.watch.read([self.key])
        if not self.is_valid():
            raise LockLost(f"{self.name}: {self.loss or 'the lease was not renewed in time'}")

    async def end(self, handover: Mapping[str, Any]) -> Ending:
        """The work has ended: give the lock to the heir that was found, or free it. What became of it.

        Bounded by the time of two requests. A release of which nobody knows whether it was applied, or that was cut
        short, is looked after by the session: the next renewals find the lock under our lease and release it again.
        """
        self._guard.done()
        self._giving_away = True
        try:
            if self.loss is not None:
                return Ending.LOST
            if self.heir is not None and self._settled and await self._transfer(self.heir, handover):
                return Ending.HANDED_OVER
            return await self._release(handover)
        except BaseException:
            self._context.touched.doubt(self.key)
            raise
        finally:
            self._drop()

    def _drop(self) -> None:
        context = self._context
        del context.claims.holds[self.key]
        context.touched.end(self.grant)
        context.watch.hear_again(self.key)  # what came to stand there while this was ending is nobody's
        context.watch.wake()
        if self.listens:
            context.watch.unfollow(REQUEST + self.name)

    @property
    def _settled(self) -> bool:
        """Has everybody who led before had the time to hear of it? If not, the next holder must wait for that as we
        did, so what we leave may not say that the lock was released."""
        return not self.origin.settles or clock.now() >= self.since + self._context.timing.settle

    async def _transfer(self, heir: Entry, handover: Mapping[str, Any]) -> bool:
        identity, record = self._context.identity, Record.from_bytes(heir.record or b"")
        if record is None:
            return False
        token = identity.tokens.of(self.name)
        record = dataclasses.replace(
            record,
            names=(),
            answer={},
            since=clock.utc_text(),
            seen=token,
            tokens={self.name: token},
            handed_over_by=identity.instance,
            gap=round(clock.now() - self._heir_found_at, 4),
            handover=handover,
        )
        try:
            given = await self._context.driver.transfer(self.grant, heir, record.to_bytes())
        except (BackendUnavailable, BackendRefused) as error:
            # It may have been applied. The release that follows carries our index, so it cannot take it from the heir.
            log.info("%s: no answer to the hand-over, releasing instead: %s", self.name, error)
            return False
        if given:
            self._context.touched.note_given(self.grant)
        return given

    async def _release(self, handover: Mapping[str, Any]) -> Ending:
        context = self._context
        farewell = context.identity.record(self.name, released=self._settled, handover=handover).to_bytes()
        until = clock.now() + context.timing.request
        while True:
            try:
                limit = max(0.05, until - clock.now())
                await within(limit, context.driver.backend, context.driver.release(self.grant, farewell))
                context.touched.note_given(self.grant)
                return Ending.RELEASED
            except LeaseExpired:
                return Ending.RELEASED  # nothing is left to release
            except (BackendUnavailable, BackendRefused) as error:
                if clock.now() >= until:
                    log.warning("%s: not released, the next renewal does it or the ttl: %s", self.name, error)
                    context.touched.note_unreleased(self.grant, farewell)
                    return Ending.UNCONFIRMED
            await asyncio.sleep(random.uniform(0.05, 0.15))


def describe(entry: Entry) -> str:
    """Who holds it, for people."""
    record = Record.from_bytes(entry.record or b"")
    return f"{record.instance} on {record.host}, pid {record.pid}" if record else f"lease {entry.lease}"
