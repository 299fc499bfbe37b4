"""A lock that stands under our lease although nobody here works on it is released at once.

It gets there by an acquire that was given up or whose answer was lost and that is applied later, by a copy of one, by a
transfer that nobody waits for any more, or because the store was set back. A renewed lease would hold it for ever
(docs/design.md#late-acquire).
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import LEADER, Entry, Grant

from .context import Context

log = logging.getLogger("cluster_lock.reconcile")


class Reconciler:
    """Acts on what `touched` knows."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def look(self, keys: Collection[str]) -> None:
        """Read `keys` now, as far as that is possible; what has become ours unasked is released."""
        for key in keys:
            self._context.touched.doubt(key)
        await self.read(keys)

    async def sweep(self) -> None:
        """Read whatever could ever come to stand under our lease, and all that somebody waits for: a request may be
        older than we follow its key, and a watch may be deaf in a store that was set back."""
        watch, touched = self._context.watch, self._context.touched
        asked = watch.moment
        await self.read({*watch.wanted, *(touched.ever or ())})
        if touched.ever is None:
            try:
                entries = await self._context.driver.scan(LEADER)
            except (BackendUnavailable, BackendRefused) as error:
                log.debug("not all locks were looked at: %s", error)
            else:
                watch.take({entry.name: entry for entry in entries}, asked)

    async def read(self, keys: Collection[str]) -> None:
        """As far as that is possible now."""
        try:
            if keys:
                await self._context.watch.read(keys)
                self._context.touched.note_read(keys)
        except (BackendUnavailable, BackendRefused) as error:
            log.debug("looking again with the next renewal: %s", error)

    async def release(self, entry: Entry) -> None:
        """Release what stands under our lease at `entry`, unless somebody here asks for it after all.

        The farewell does not say `released`: the last leader may not have heard of it yet, so the next one
        settles."""
        context, lease = self._context, self._context.lease.current
        if lease is None or entry.lease != lease.id or entry.name in context.claims.in_use:
            return
        log.warning("%s was found under our lease although nobody here waits for it: releasing it", entry.name)
        grant = Grant(entry.name, lease, entry.index, entry.index, entry.record or b"")
        farewell = context.identity.record(entry.name.removeprefix(LEADER)).to_bytes()
        await self.give_back(grant, farewell)

    async def give_back(self, grant: Grant, farewell: bytes) -> None:
        """Release a grant that nobody works under, or ever did. The last word is that of the first try, which may have
        contents for the next one."""
        context, touched = self._context, self._context.touched
        farewell = touched.farewell(grant) or farewell
        touched.touch(grant.name)
        touched.end(grant)  # a caller from here on may not make it its own: the release may arrive at any moment
        try:
            await context.driver.release(grant, farewell)
            touched.note_given(grant)
        except LeaseExpired as error:
            context.lease.note_expired(grant.lease, error)
        except (BackendUnavailable, BackendRefused) as error:
            touched.note_unreleased(grant, farewell)
            log.debug("not released, again with the next renewal: %s", error)
