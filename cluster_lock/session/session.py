"""Owns one lease and keeps it renewed; any number of locks hang off it.

A lease that is lost takes every lock under it along. Each is told, the session waits until the work under them has
ended, gives the old lease up, and gets a new one: waiters go on waiting through all of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
from collections import defaultdict
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cluster_lock import clock
from cluster_lock.aio import finish
from cluster_lock.driver import Driver
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ClusterLockError,
    ConfigError,
    LeaseExpired,
    NoLeaseYet,
)
from cluster_lock.lease.guard import Guard, NoGuard, process_guard
from cluster_lock.lease.watchdog import Watchdog
from cluster_lock.observer import SILENT, Observer
from cluster_lock.values import HIGHEST_FLOOR, LEADER, REQUEST, Entry, Lease, Record, Timing
from cluster_lock.version import __version__

from .contender import Contender
from .hold import Hold
from .lock import Lock
from .reconcile import Reconciler
from .request_pace import Pace
from .requests import Ask
from .tokens import Tokens
from .watch import Watch

if TYPE_CHECKING:
    from cluster_lock.config import Settings

log = logging.getLogger("cluster_lock.session")

LONGEST_INSTANCE = 500
"""Characters."""
GIVE_UP = 10
"""For so many ttl we try to revoke an abandoned lease. By then it is forgotten, or nobody answers at all."""


class Session:
    """One lease, kept renewed. Use as an async context manager; one per process is enough.

    `driver`: not yet opened; the session opens and closes it. `instance`: names this process slot among the contenders.
    `health`, `config`: shown in the records (an address, a fingerprint). `fencing_floor`: added to every token; what an
    operator sets after the backend was restored or moved. `fail_fast`: `lease()` raises BackendUnavailable when the
    backend cannot be reached at first, instead of waiting for it; silent endpoints beside others that answer are waited
    for in any case, for a ttl at most. `observer`: told what happens to the lease. Raises
    ConfigError for an `instance` of more than 500 characters, or a floor that is none (0 to 10**15).
    """

    def __init__(
        self,
        driver: Driver,
        *,
        instance: str | None = None,
        timing: Timing | None = None,
        health: str | None = None,
        config: str | None = None,
        fencing_floor: int = 0,
        fail_fast: bool = False,
        guard: Guard | NoGuard | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self.driver = driver
        self.observer = observer
        self.timing = timing or Timing()
        self.host = socket.gethostname()
        self.instance = instance or self.host
        if len(self.instance) > LONGEST_INSTANCE:  # a record of ours with more in it would be read as a stranger's
            raise ConfigError([f"the instance's name must have at most {LONGEST_INSTANCE} characters"])
        if not 0 <= fencing_floor <= HIGHEST_FLOOR:  # nor would a record with a larger token be ours
            raise ConfigError([f"fencing_floor must be between 0 and {HIGHEST_FLOOR}"])
        self.holder = f"{self.instance}@{self.host}/{os.getpid()}-{secrets.token_hex(4)}"
        self.fencing_floor = fencing_floor
        self.tokens = Tokens(fencing_floor)
        self.health = health
        """Shown in the records that are written from now on."""
        self._config, self._fail_fast = config, fail_fast
        self.guard = guard or process_guard()
        self.watch = Watch(
            driver,
            at_most=self.timing.ttl,
            heard=self.heard,
            went_back=self._went_back,
            renews=lambda: self.current_lease is not None,
        )
        self.reconciler = Reconciler(self)
        self.contender = Contender(
            driver, self.timing, lease=lambda: self.current_lease, record=self.record, later=self.later
        )
        self.holds: dict[str, Hold] = {}
        self.pace = Pace()
        self.claimed: set[str] = set()
        """Keys that somebody in this process is taking at this moment."""
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By key: one lease may hold a lock only once, so its users in this process take turns (coordination trap
        8)."""
        self._watchdog: Watchdog | None = None
        self._sweep_at = float("-inf")
        self._failed: ClusterLockError | None = ClusterLockError("the session is not open: enter it with `async with`")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.driver.open()
        only = ", which serves this host alone (for several: backend etcd or consul)"
        log.info("instance %s on %s%s", self.instance, self.driver.backend, only if self.driver.traits.one_host else "")
        self._failed = None
        self.later(self.watch.run())
        self.later(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give everything up: the contender record, the lease, the connections. Bounded: the time of two requests.

        The work under the locks must have ended before. Whoever still waits for a lock is told with an error.
        """
        await finish(self._close())

    async def _close(self) -> None:
        self._failed = self._failed or ClusterLockError("the session is closed")
        self.watch.wake()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # each has said itself what it died of
        watchdog, self._watchdog = self._watchdog, None
        try:
            if watchdog is not None:
                watchdog.lose("the session is closed")
                for hold in list(self.holds.values()):
                    hold.lose("the session is closed")
                await self._give_up(watchdog.lease, clock.now() + self.timing.request)
        finally:
            await self.driver.close()

    def lock(self, name: str) -> Lock:
        """The lock called `name` ("telegram/123456", "reports/nightly"). Raises ValueError for what is no text."""
        try:
            name.encode()
        except UnicodeEncodeError as error:  # half a character: the one watch of all locks would fail
            raise ValueError(f"a lock cannot be called {name!r}: {error.reason}") from error
        return Lock(self, name)

    # The lease

    async def lease(self) -> Lease:
        """The current lease, as soon as there is one to be trusted. Raises what makes it impossible to get one."""
        while True:
            news = self.watch.news
            if self._failed is not None:
                raise self._failed
            if (lease := self.current_lease) is not None:
                return lease
            await self.watch.changed(news)

    @property
    def failure(self) -> ClusterLockError | None:
        """Why there will never be a lease again; None while the session works."""
        return self._failed

    @property
    def current_lease(self) -> Lease | None:
        """The lease, if there is one that is trusted at this very moment."""
        watchdog = self._watchdog
        trusted = watchdog is not None and not watchdog.lost.done() and clock.now() < watchdog.stop_at
        return watchdog.lease if watchdog is not None and trusted else None

    def expired(self, lease: Lease, error: LeaseExpired) -> None:
        """The backend said, to another request than a renewal, that `lease` is gone."""
        if self._watchdog is not None and self._watchdog.lease == lease:
            self._watchdog.lose(f"the backend says that the lease is gone ({error})")

    def check_lease(self) -> None:
        """A key of ours is gone. Alone, or with the lease? Ask now: the sooner a new one is asked for, the better."""
        if self._watchdog is not None:
            self._watchdog.renew_soon()

    @property
    def stop_at(self) -> float:
        """The moment at which work under the current lease is cancelled; in the past while there is none."""
        return self._watchdog.stop_at if self._watchdog is not None else float("-inf")

    @property
    def deadline(self) -> float:
        """The moment after which the current lease is not trusted."""
        return self._watchdog.deadline if self._watchdog is not None else float("-inf")

    async def _run(self) -> None:
        try:
            while True:
                self._watchdog = watchdog = await self._grant()
                self.reconciler.renewed_lease()
                self._sweep_at = clock.now() + self.timing.ttl - self.timing.renew_every / 2
                self.watch.forget()
                self.later(self.contender.write())
                await watchdog.run()
                while self.holds:  # each was told, and its work ends before the old lease is given up
                    await self.watch.changed(self.watch.news)
                # For long: a store that comes back may still have it, counting anew, and no lease is to be had before.
                await self._give_up(watchdog.lease, clock.now() + GIVE_UP * watchdog.timing.ttl)
        except ClusterLockError as error:
            self._failed = error
            self.watch.wake()

    async def _grant(self) -> Watchdog:
        """A new lease, however long it takes. What can never work is raised, but only while none was ever granted."""
        first, said, pause = self._watchdog is None, False, 0.1
        while True:
            sent = clock.now()
            try:
                async with asyncio.timeout(self.timing.request):
                    lease = await self.driver.grant_lease(self.holder, self.timing.ttl)
                watchdog = await self._guarded(lease, sent)
                if said or not first:
                    log.info("a new lease from %s", self.driver.backend)
                return watchdog
            except TimeoutError as late:
                error: ClusterLockError = BackendUnavailable(f"no answer within {self.timing.request:.1f} s")
                error.__cause__ = late
            except (BackendUnavailable, BackendRefused) as answer:
                error = answer
            # Whoever starts once more begins that wait anew.
            at_once = self._fail_fast and not isinstance(error, NoLeaseYet)
            if first and (at_once or isinstance(error, BackendRefused)):
                raise error
            self.observer.lease_unsure(f"no lease from {self.driver.backend}: {error}")
            if not said:
                log.warning("no lease from %s, trying on: %s", self.driver.backend, error)
                said = True
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(1.0, pause * 2)

    async def _guarded(self, lease: Lease, sent: float) -> Watchdog:
        try:
            timing = self.timing.promised(lease.ttl)
        except ValueError as error:
            await self._give_up(lease, clock.now() + self.timing.request)
            raise BackendRefused(f"{self.driver.backend} granted a ttl of {lease.ttl:g} s: {error}") from error
        watchdog = Watchdog(
            self.driver, lease, sent, timing, confirm=self._confirm, moved=self._moved, observer=self.observer
        )
        self.observer.lease_granted(timing, watchdog.deadline)
        # At once, and not when `run` has returned: a renewal that hangs may delay that, a bug may prevent it.
        watchdog.lost.add_done_callback(lambda lost: self._lost(watchdog, lost.result()))
        return watchdog

    def _moved(self, deadline: float) -> None:
        with self.guard.together():
            for hold in self.holds.values():
                hold.moved(deadline)

    def _lost(self, watchdog: Watchdog, reason: str) -> None:
        """Tell every hold."""
        if self._watchdog is watchdog:  # else the session is closed, which is no loss
            # Whoever works under a lock is told the reason and says so himself.
            log.log(logging.DEBUG if self.holds else logging.WARNING, "lease lost: %s", reason)
            for hold in list(self.holds.values()):
                hold.lose(reason)
            self.observer.lease_lost(reason)

    async def _give_up(self, lease: Lease, until: float) -> None:
        """Revoke, trying until `until`: an abandoned lease must not stand beside the next one (interleaving M3)."""
        pause = 0.1
        while True:
            try:
                async with asyncio.timeout(max(0.05, min(self.timing.request, until - clock.now()))):
                    return await self.driver.revoke(lease)
            except (BackendUnavailable, BackendRefused, TimeoutError) as error:
                if clock.now() >= until:
                    return log.info("lease %s was left to its ttl: %s", lease.id, str(error) or "no answer in time")
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(1.0, pause * 2)

    # What the backend says, by whichever way

    async def _confirm(self, epoch: int) -> None:
        """The second detector beside the watch: one linearizable read of what we hold, or may hold without knowing."""
        if names := {*self.holds, *self.reconciler.unsure}:
            asked = self.watch.moment
            changes = await self.driver.read(names)
            if changes.epoch > epoch:
                # A deposed etcd server went on answering keepalives for a lease that was gone (interleaving S4).
                raise BackendUnavailable(f"the renewal was answered in store term {epoch}, it is {changes.epoch} now")
            self.watch.take(changes.entries, asked)
        self.reconciler.forget_old(self.claimed | self.holds.keys())
        self.later(self.contender.write())
        if clock.now() >= self._sweep_at:
            self._sweep_at = clock.now() + self.timing.ttl - self.timing.renew_every / 2
            self.later(self.reconciler.sweep())
        if (stuck := self.reconciler.stuck()) is not None and not self.holds and self._watchdog is not None:
            self._watchdog.lose(f"{stuck} could not be released within a ttl, so the lease that holds it is given up")

    def heard(self, entry: Entry, asked: int = -1) -> None:
        """News about one key. `asked`: see `Watch.take`."""
        name, lease = entry.name, self._watchdog.lease.id if self._watchdog is not None else None
        if name == self.contender.key:
            self.contender.heard(entry)
        elif name.startswith(REQUEST):
            self._asked(name.removeprefix(REQUEST), entry)
        if not name.startswith(LEADER):
            return
        if entry.lease not in (None, lease):
            self.tokens.note(name.removeprefix(LEADER), self.fencing_floor + entry.index)
        if entry.lease is None or entry.lease != lease:
            self.reconciler.is_elsewhere(name)
        if (hold := self.holds.get(name)) is not None:
            hold.heard(entry, asked)
        elif entry.lease is not None and entry.lease == lease and not self.reconciler.is_old(entry):
            self.later(self.reconciler.release(entry))

    def _went_back(self, why: str) -> None:
        """The store was set back: what stood there then stands there again, a lock that we gave away under our lease
        too. Whoever works under one is told by the next read, which is made now."""
        log.warning("the store was set back, everything is read again: %s", why)
        self.reconciler.forget_indexes()
        self.contender.doubt()
        self._sweep_at = float("-inf")
        self.check_lease()

    def _asked(self, name: str, entry: Entry) -> None:
        if (led := self.holds.get(LEADER + name)) is not None:
            led.asked(entry)
        elif entry.lease is not None and Ask.of(entry) is not None:
            self.pace.heeded(name, entry.lease)  # by whoever leads

    def drop(self, hold: Hold) -> None:
        """`hold` was given away, or is lost and its work has ended."""
        del self.holds[hold.key]
        self.reconciler.ended(hold.grant)
        if (known := self.watch.entries.get(hold.key)) is not None:
            self.heard(known)  # what came to stand there while the hold was ending is nobody's
        self.watch.wake()

    def record(self, *locks: str, **more: Any) -> Record:
        """Who we are, for people to read under the keys, and what we know of `locks`."""
        tokens = {name: self.tokens.of(name) for name in locks}
        return Record(
            holder=self.holder,
            instance=self.instance,
            host=self.host,
            pid=os.getpid(),
            since=clock.utc_text(),
            version=__version__,
            health=self.health,
            config=self._config,
            tokens=tokens,
            seen=max(tokens.values(), default=0),
            **more,
        )

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside, as long as the session is open."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours. Nobody may rely on this session any more; say why.
            log.error("the session stopped working", exc_info=error)
            self._failed = ClusterLockError(f"the session stopped working: {error!r}")
            if self._watchdog is not None:
                self._watchdog.lose(str(self._failed))
            self.watch.wake()


def open_session(
    settings: Settings, *, fail_fast: bool = False, health: str | None = None, observer: Observer = SILENT
) -> Session:
    """The session that `settings` describe: `async with open_session(load_settings()) as session: ...`.

    `health`: the address of this process's health page, for the records.
    Raises what keeps its driver from being made (ConfigError, DriverMissing).
    """
    from cluster_lock.config import open_driver

    return Session(
        open_driver(settings),
        instance=settings.instance,
        timing=settings.timing,
        health=health,
        config=settings.fingerprint,
        fencing_floor=settings.fencing_floor,
        fail_fast=fail_fast,
        observer=observer,
    )
