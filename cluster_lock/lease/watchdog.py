"""Renews one lease, moves its deadline, and says when it is lost.

`deadline = moment before the renewal was sent + ttl - margin`. It never counts from the reply: a reply that was under
way for two seconds says that the server began to count two seconds ago (docs/design.md#deadline). A renewal has three
answers: renewed, gone, and not known. "Not known" neither moves the deadline nor ends anything; it is tried again until
`stop_at`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.observer import SILENT, Observer
from cluster_lock.values import EndCode, EndReason, Lease, Timing

log = logging.getLogger("cluster_lock.watchdog")

RECHECK = 0.5
"""Loop timers run on CLOCK_MONOTONIC, which a suspend stops, and the deadline does not: look again this often."""


def deadline_after(sent: float, timing: Timing) -> float:
    """The moment until which a lease is trusted whose granting or renewing request was sent at `sent`."""
    return sent + timing.ttl - timing.margin


def lease_gone(error: LeaseExpired) -> EndReason:
    return EndReason(f"the backend says that the lease is gone ({error})", EndCode.LEASE_GONE)


class Watchdog:
    """Guards one lease from its grant to its end.

    `timing.ttl` must be the ttl that the server granted. `sent`: the moment before the granting request was sent.
    `confirm(epoch)`: awaited after each renewal, within the same time limit; the renewal counts only when it returns
    (a leader reads its locks there). `moved(deadline)`: called at each move of the deadline.
    """

    def __init__(
        self,
        driver: Driver,
        lease: Lease,
        sent: float,
        timing: Timing,
        *,
        confirm: Callable[[int], Awaitable[None]],
        moved: Callable[[float], None],
        observer: Observer = SILENT,
    ) -> None:
        self.lease = lease
        self.timing = timing
        self.deadline = deadline_after(sent, timing)
        self.lost: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        """Done with the reason, one sentence, as soon as the lease is not to be trusted any more."""
        self.last_renewal = sent
        self._driver = driver
        self._confirm = confirm
        self._moved = moved
        self._observer = observer
        self._trouble: str | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    @property
    def stop_at(self) -> float:
        return self.deadline - self.timing.stop_time

    def lose(self, reason: EndReason) -> None:
        """The lease is not to be trusted from now on; what succeeds later revives nothing."""
        if not self.lost.done():
            self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """The first layer that stops the work. A timer of its own, so that no hung renewal can delay it."""
        left = self.stop_at - clock.now()
        if left <= 0:
            why = f": {self._trouble}" if self._trouble else ""
            age = clock.now() - self.last_renewal
            text = f"the lease was last renewed {age:.1f} s ago (ttl {self.timing.ttl:g} s){why}"
            self.lose(EndReason(text, EndCode.NOT_RENEWED))
        elif not self.lost.done():
            self._timer = asyncio.get_running_loop().call_later(min(left, RECHECK), self._look)

    def renew_soon(self) -> None:
        """Renew now rather than at the next third: something makes us doubt that the lease is still there."""
        self._wake.set()

    async def run(self) -> EndReason:
        """Renew until the lease is lost; the reason. Cancel it to stop renewing without losing."""
        try:
            while not self.lost.done():
                await self._sleep(self.last_renewal + self.timing.renew_every - clock.now())
                while not self.lost.done() and not await self._renew():
                    await self._sleep(random.uniform(0.5, 1.5) * min(1.0, self.timing.ttl / 30))
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return self.lost.result()

    async def _sleep(self, seconds: float) -> None:
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((self.lost, waking), timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
            self._wake.clear()  # and not before: a doubt that came up during a renewal is about what comes after it

    async def _renew(self) -> bool:
        """One renewal. False: not known, try again soon."""
        sent = clock.now()
        limit = min(self.timing.request, self.stop_at - sent)
        if limit <= 0:  # a suspend, or a blocked loop: it is lost, and that need not wait for the timer
            self._look()
            return True
        try:
            async with asyncio.timeout(limit):
                epoch = await self._driver.renew(self.lease)
                await self._confirm(epoch)
        except LeaseExpired as error:
            self.lose(lease_gone(error))
            return True
        except TimeoutError:
            return self._unsure(f"no answer within {limit:.1f} s")
        except (BackendUnavailable, BackendRefused) as error:
            # A refusal does not say that the lease is gone: it may be a permission that is being repaired. The deadline
            # decides, as it does when nobody answers (docs/design.md#unsure-is-not-lost).
            return self._unsure(str(error))
        if self._trouble is not None:
            log.info("lease renewed again after: %s", self._trouble)
            self._trouble = None
        if clock.now() >= self.stop_at:
            self._look()  # a loop that was blocked until now: what succeeds too late revives nothing
        if not self.lost.done():
            self.last_renewal = sent
            self.deadline = deadline_after(sent, self.timing)
            self._moved(self.deadline)
            self._observer.lease_renewed(self.deadline, clock.now() - sent)
        return True

    def _unsure(self, trouble: str) -> bool:
        if self._trouble is None:
            log.warning("lease not renewed, trying again for %.1f s: %s", max(0.0, self.stop_at - clock.now()), trouble)
        self._trouble = trouble
        self._observer.lease_unsure(trouble)
        return False
