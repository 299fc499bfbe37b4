"""All instances of a demo: what they say, when they end, and which of their terms ended without a confirmation."""

from __future__ import annotations

import asyncio
import sys

from cluster_lock.aio import end
from cluster_lock.testing.telegram import Oracle

from .instance import Instance
from .launch import Launch
from .status import Status
from .verdict import TermOf

STARVED = (70, -9)
"""How an instance ends that could not keep its lease in time: the guard's code, and the kernel timer's SIGKILL."""

STOPPED_WITHIN = 60.0


class DemoFailed(Exception):
    """The demo cannot go on. The text is for a person."""


class Fleet:
    """`size` instances, "bot-1" and so on."""

    def __init__(self, size: int, how: Launch, oracle: Oracle) -> None:
        names = [f"bot-{number}" for number in range(1, size + 1)]
        self.instances = [Instance(name, how, self._ended) for name in names]
        self.lost: set[TermOf] = set()
        """The terms that ended without their last confirmation."""
        self.failed: str | None = None
        """Why the demo cannot go on."""
        self.stopping = False
        self._oracle = oracle
        self._doomed: set[str] = set()
        self._hung: list[str] = []
        self._restarts: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for instance in self.instances:
            await instance.start()

    def heard(self, status: Status) -> None:
        """One of them said how it is."""
        for instance in self.instances:
            if instance.is_running and status.client == instance.client:
                instance.heard(status)
        self.lost.update((status.client, term) for term in status.lost)

    def doom(self, instance: Instance) -> None:
        """Its process of now is about to end by our doing: that is no news."""
        self._doomed.add(instance.client)

    def leader(self) -> Instance | None:
        """Who says that it leads and was the last one to poll."""
        leaders = [instance for instance in self.instances if instance.role == "leader"]
        if not leaders:
            return None
        polls = self._oracle.polls()
        last = polls[-1].poll.client if polls else None
        return next((instance for instance in leaders if instance.client == last), None)

    async def stop(self) -> list[str]:
        """SIGTERM to all, the leader last, and what was wrong with their ends, one sentence each.

        What is only starting up is left for `kill`, and what starved at its end had its reason.
        """
        self.stopping = True
        await asyncio.gather(*self._restarts)
        running = [instance for instance in self.instances if instance.is_running and instance.status is not None]
        leader = self.leader()
        await asyncio.gather(*(self._stop(instance) for instance in running if instance is not leader))
        if leader is not None:
            await self._stop(leader)
        ended = {each.name: each.code for each in running if each.code not in (0, *STARVED)}
        return [*self._hung, *(f"{name} ended with code {code} after SIGTERM" for name, code in ended.items())]

    async def _stop(self, instance: Instance) -> None:
        instance.terminate()
        try:
            await instance.ended(STOPPED_WITHIN)
        except TimeoutError:
            self._hung.append(f"{instance.name} still ran {STOPPED_WITHIN:g} s after SIGTERM")
            instance.kill()
            await instance.ended(STOPPED_WITHIN)

    async def kill(self) -> None:
        """The end, whatever they do."""
        self.stopping = True
        await end(list(self._restarts))
        running = [instance for instance in self.instances if instance.is_running]
        for instance in running:
            instance.kill()
        for instance in running:
            await instance.ended(STOPPED_WITHIN)

    def _ended(self, instance: Instance, client: str, code: int) -> None:
        polls = self._oracle.polls()
        if code != 0 and polls and polls[-1].poll.client == client:
            self.lost.add((client, polls[-1].poll.term))
        # Without a moment of ours: what it wrote before its end, and the simulator has yet to read, is not late.
        self._oracle.dead(client)
        if client in self._doomed or self.stopping:
            return
        if code in STARVED and sys.platform != "win32":
            task = asyncio.get_running_loop().create_task(instance.start())
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)
        else:
            self.failed = (
                f"{instance.name} ended by itself with code {code}; the end of its log:\n{instance.log_tail()}"
            )
