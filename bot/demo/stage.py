"""What the faults are done to, the instances, the simulated Telegram and the backend's server; and the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster_lock import clock
from cluster_lock.testing.servers import Server
from cluster_lock.testing.telegram import TelegramSimulator

from .changes import DemoFault, Kind
from .fleet import DemoFailed, Fleet
from .instance import Instance
from .plan import DemoPlan

LOOK_EVERY = 0.03
READY_WITHIN = 300.0
"""For an instance from its start: importing aiogram takes seconds of a processor, a minute where many share it."""
CHANGE_WITHIN = 60.0
"""For the next leader, beyond the time in which the lock must be free."""
SETTLED_STANDBY = 0.3
"""Seconds that an instance has to stand by before a fault: its contender record is written by then."""


class Stage:
    def __init__(self, plan: DemoPlan, simulator: TelegramSimulator, fleet: Fleet, server: Server | None) -> None:
        self.plan = plan
        self.simulator = simulator
        self.fleet = fleet
        self.server = server
        self.faults: list[DemoFault] = []
        self.began: float | None = None
        """When the traffic began."""
        self.waiting_for = ""

    @property
    def waiting(self) -> int:
        """Updates that are not confirmed yet."""
        return len(self.simulator.bot(self.plan.bot_id).queue)

    async def until(self, what: str, condition: Callable[[], bool], within: float) -> None:
        """Return when `condition` is true. DemoFailed after `within` seconds, or when an instance ended by itself."""
        self.waiting_for = what
        end = clock.now() + within
        while not condition():
            if self.fleet.failed is not None:
                raise DemoFailed(self.fleet.failed)
            if clock.now() > end:
                raise DemoFailed(f"waited {within:g} s in vain for {what}")
            await asyncio.sleep(LOOK_EVERY)
        self.waiting_for = ""

    async def leader(self) -> Instance:
        """Who leads, as soon as somebody does."""
        await self.until("somebody to lead", lambda: self.fleet.leader() is not None, READY_WITHIN)
        leader = self.fleet.leader()
        assert leader is not None
        return leader

    async def ready(self, standbys: int = 1) -> Instance:
        """The leader, as soon as there are so many standbys too, and it has no more work waiting than usual."""

        def are_ready() -> bool:
            since = clock.now() - SETTLED_STANDBY
            ready = [one for one in self.fleet.instances if one.role == "standby" and one.stands_by_since(since)]
            return len(ready) >= standbys and self.waiting <= self.plan.rate and self.fleet.leader() is not None

        await self.until(
            f"a leader at its usual work and {standbys} standby" + "s" * (standbys > 1), are_ready, READY_WITHIN
        )
        return await self.leader()

    def begin(self, kind: Kind, words: str, leader: Instance, *, must_change: bool = True) -> DemoFault:
        """Write down what is about to be done to `leader`."""
        fault = DemoFault(
            kind=kind,
            words=words,
            client=leader.client,
            term=leader.status.term if leader.status is not None else None,
            began=clock.now(),
            must_change=must_change,
        )
        self.faults.append(fault)
        return fault

    async def changed(self, fault: DemoFault) -> None:
        """Return when another one has sent its first getUpdates."""

        def has_changed() -> bool:
            if not any(one.role == "leader" and one.client != fault.client for one in self.fleet.instances):
                return False
            changes = self.simulator.oracle.changes()
            return any(change.old == fault.client and change.started >= fault.began for change in changes)

        within = self.plan.freed_after + CHANGE_WITHIN
        await self.until(f"somebody to take over after: {fault.words}", has_changed, within)

    async def restart(self, instance: Instance) -> int:
        """Let its process end that was doomed, and start the next one, so that there are as many again. The exit code
        of the one that ended."""
        try:
            code = await instance.ended(CHANGE_WITHIN)
        except TimeoutError:
            raise DemoFailed(f"{instance.name} did not end; the end of its log:\n{instance.log_tail()}") from None
        await instance.start()
        return code
