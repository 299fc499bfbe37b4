"""What the backend says, by whichever way, and which of a session's parts hears of it."""

from __future__ import annotations

import logging

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.values import LEADER, REQUEST, EndCode, EndReason, Entry

from .context import Context
from .reconcile import Reconciler
from .requests import Ask

log = logging.getLogger("cluster_lock.session")


class Upkeep:
    """Of one session: its `LeaseEvents`, and what its watch calls. `driver`: without a limit, the watchdog has one."""

    def __init__(self, context: Context, reconciler: Reconciler, driver: Driver) -> None:
        self._context, self._reconciler, self._driver = context, reconciler, driver
        self._sweep_at = float("-inf")

    def heard(self, entry: Entry, asked: int = -1) -> None:
        """News about one key. `asked`: see `Watch.take`."""
        context, name = self._context, entry.name
        if name == context.contender.key:
            context.contender.heard(entry)
        elif name.startswith(REQUEST):
            self._asked(name.removeprefix(REQUEST), entry)
        elif name.startswith(LEADER):
            self._heard_of_lock(entry, asked)

    def _asked(self, name: str, entry: Entry) -> None:
        if (led := self._context.claims.holds.get(LEADER + name)) is not None:
            led.asked(entry)
        elif entry.lease is not None and Ask.of(entry) is not None:
            self._context.pace.heeded(name, entry.lease)  # by the leader

    def _heard_of_lock(self, entry: Entry, asked: int) -> None:
        context, name, latest = self._context, entry.name, self._context.lease.latest
        ours = latest is not None and entry.lease == latest.id
        if not ours:
            context.touched.note_elsewhere(name)
            if entry.lease is not None:
                token = context.identity.fencing_floor + entry.index
                context.identity.tokens.note(name.removeprefix(LEADER), token)
        if (hold := context.claims.holds.get(name)) is not None:
            hold.heard(entry, asked)
        elif ours and context.touched.is_back(entry, asked):
            context.watch.set_back(f"{name} was given away at {entry.index}, and stands under our lease again")
        elif ours and not context.touched.is_old(entry):
            context.background.later(self._reconciler.release(entry))

    def went_back(self, why: str) -> None:
        """The store was set back: what stood there then stands there again, a lock that we gave away under our lease
        too. The work under one is told by the next read, which is made now."""
        log.warning("the store was set back, everything is read again: %s", why)
        self._context.touched.forget_indexes()
        self._context.contender.doubt()
        self._sweep_at = float("-inf")
        self._context.lease.renew_soon()

    def granted(self) -> None:
        context = self._context
        context.touched.begin_lease()
        self._plan_sweep()
        context.watch.forget()
        context.background.later(context.contender.write())

    async def confirm(self, epoch: int) -> None:
        """The second detector beside the watch: one linearizable read of what we hold. What we may hold without knowing
        is read apart: no leader pays for it where the backend has no answer for that."""
        context, touched = self._context, self._context.touched
        if names := set(context.claims.holds):
            asked = context.watch.moment
            changes = await self._driver.read(names)
            if changes.epoch > epoch:
                # A deposed etcd server may go on answering keepalives (docs/design.md#deposed-server).
                raise BackendUnavailable(f"the renewal was answered in store term {epoch}, it is {changes.epoch} now")
            context.watch.take(changes.entries, asked)
        if in_doubt := touched.unsure - names:
            context.background.later(self._reconciler.read(in_doubt))
        touched.forget_old(context.claims.in_use)
        context.background.later(context.contender.write())
        if clock.now() >= self._sweep_at:
            self._plan_sweep()
            context.background.later(self._reconciler.sweep())
        if (stuck := touched.stuck()) is not None and not context.claims.holds:
            context.lease.lose(EndReason(f"{stuck}, so the lease that holds it is given up", EndCode.LOST))

    def moved(self, deadline: float) -> None:
        with self._context.guard.together():
            for hold in self._context.claims.holds.values():
                hold.moved(deadline)

    def lost(self, reason: EndReason) -> None:
        holds = list(self._context.claims.holds.values())
        # The work under a lock is told the reason and says so itself.
        log.log(logging.DEBUG if holds else logging.WARNING, "lease lost: %s", reason)
        for hold in holds:
            hold.lose(reason)

    async def idle(self) -> None:
        while self._context.claims.holds:
            await self._context.watch.changed(self._context.watch.news)

    def _plan_sweep(self) -> None:
        timing = self._context.timing
        self._sweep_at = clock.now() + timing.ttl - timing.renew_every / 2
