"""Owns one lease and keeps it renewed; any number of locks hang off it. Here its parts are put together."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from cluster_lock import clock
from cluster_lock.aio import finish
from cluster_lock.driver import Driver
from cluster_lock.drivers import FOR_SEVERAL_HOSTS
from cluster_lock.drivers.bounded import BoundedDriver
from cluster_lock.drivers.checked import CheckedDriver
from cluster_lock.errors import ClusterLockError, ContractBroken, in_words
from cluster_lock.lease.guard import Guard, NoGuard, process_guard
from cluster_lock.observer import SILENT, Observer
from cluster_lock.values import Lease, Timing

from .background import BackgroundTasks
from .claims import Claims
from .contender import Contender
from .context import Context
from .identity import Identity
from .lock import Lock
from .reconcile import Reconciler
from .request_pace import RequestPace
from .session_lease import CLOSED, SessionLease
from .touched import Touched
from .upkeep import Upkeep
from .watch import Watch

log = logging.getLogger("cluster_lock.session")


class Session:
    """One lease, kept renewed. Use as an async context manager; one per process is enough.

    `driver`: not yet opened; the session opens and closes it. `instance`: names this process slot among the contenders.
    `health`, `config`: shown in the records (an address, a fingerprint). `fencing_floor`: added to every token; what an
    operator sets after the backend was restored or moved. `fail_fast`: `lease()` raises BackendUnavailable when the
    backend cannot be reached at first, instead of waiting for it; silent endpoints beside others that answer are waited
    for in any case, for a ttl at most. `observer`: told what happens to the lease. Raises
    ConfigError for an `instance` of more than 500 characters, or a floor that is none (0 to 5 * 10**15).
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
        self.driver, self.timing = driver, timing or Timing()
        identity = Identity(instance, health=health, config=config, fencing_floor=fencing_floor)
        checked = CheckedDriver(driver, self.timing.request)
        bounded, background = BoundedDriver(checked, self.timing.request), BackgroundTasks(self._stopped_working)
        watch = Watch(
            bounded,
            at_most=self.timing.ttl,
            heard=lambda entry, asked: self._upkeep.heard(entry, asked),
            went_back=lambda why: self._upkeep.went_back(why),
            renews=lambda: lease.current is not None,
        )
        lease = SessionLease(checked, self.timing, identity.holder, watch, observer, fail_fast=fail_fast)
        lease.failure = ClusterLockError("the session is not open: enter it with `async with`")
        self.context = Context(
            driver=bounded,
            timing=self.timing,
            observer=observer,
            guard=guard or process_guard(),
            identity=identity,
            watch=watch,
            lease=lease,
            contender=Contender(
                bounded, self.timing, lease=lambda: lease.current, record=identity.record, later=background.later
            ),
            claims=Claims(),
            touched=Touched(watch, self.timing),
            pace=RequestPace(),
            background=background,
        )
        self._reconciler = Reconciler(self.context)
        self._upkeep = Upkeep(self.context, self._reconciler, checked)

    async def __aenter__(self) -> Self:
        await self.driver.open()
        only = f", which serves this host alone (for several: backend {FOR_SEVERAL_HOSTS})"
        where = f"{self.driver.backend}{only if self.driver.traits.one_host else ''}"
        log.info("instance %s on %s", self.context.identity.instance, where)
        self.context.lease.failure = None
        self.context.background.later(self.context.watch.run())
        self.context.background.later(self.context.lease.run(self._upkeep))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give everything up: the contender record, the lease, the connections. Bounded: the time of two requests.

        The work under the locks must have ended before. A caller that still waits for a lock is told with an error.
        """
        await finish(self._close())

    def lock(self, name: str) -> Lock:
        """The lock called `name` ("telegram/123456", "reports/nightly"). Raises ValueError for what is no text."""
        # Half a character, or what PostgreSQL's text cannot have: the one watch of all locks would fail.
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a lock cannot be called {name!r}: {error.reason}") from error
        if "\0" in name:
            raise ValueError(f"a lock cannot be called {name!r}: it has a NUL")
        return Lock(self.context, self._reconciler, name)

    async def lease(self) -> Lease:
        """The current lease, as soon as there is one to be trusted. Raises what makes it impossible to get one."""
        return await self.context.lease.get()

    @property
    def failure(self) -> ClusterLockError | None:
        """Why there will never be a lease again; None while the session works."""
        return self.context.lease.failure

    async def _close(self) -> None:
        lease = self.context.lease
        lease.failure = lease.failure or ClusterLockError("the session is closed")
        self.context.watch.wake()
        await self.context.background.end()
        try:
            for hold in list(self.context.claims.holds.values()):  # while the lease still says how long they have
                hold.lose(CLOSED)
            if (left := lease.abandon()) is not None:
                await lease.give_up(left, clock.now() + self.timing.request)
        finally:
            await self.driver.close()

    def _stopped_working(self, error: BaseException) -> None:
        """A bug, of ours or of the driver. Nobody may rely on this session any more; say why."""
        if isinstance(error, ContractBroken):
            log.error("the session stopped working: %s", error)
            self.context.lease.fail(error)
        else:
            log.error("the session stopped working", exc_info=error)
            self.context.lease.fail(ClusterLockError(f"the session stopped working: {in_words(error)}"))
