"""Bots that write diaries, and a simulated Telegram that judges what they do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from cluster_lock import clock
from cluster_lock.testing.telegram import Report, SimulatorControl

from .aio import PATIENCE, until
from .diaries import DiaryReader, Json

DIARIES = "TEST_BOT_DIARIES"
"""For `support.container_bot`: the folder."""
CHATS = (1, 2, 3)
LATELY = 30.0
"""Seconds in which a leader has polled at least once, whatever it waits for."""

ON_ITS_WAY = 0.05
"""Seconds in which what a process sent before its end is still on its way to the simulator's eyes."""


class Process(DiaryReader):
    """One life of a bot, by its diary."""

    @property
    def service(self) -> str:
        return self.client.partition("@")[0]

    @property
    def started(self) -> float:
        return float(self.client.partition("@")[2].partition("#")[0])

    @property
    def role(self) -> str:
        return str(self.now["role"])


class Watched:
    """What the two bots do, for one test. Each life of one has a diary in `diaries`, named by its client's name."""

    def __init__(self, diaries: Path, bot_id: int, services: Sequence[str], telegram: SimulatorControl) -> None:
        self.diaries, self.bot_id, self.services = diaries, bot_id, services
        self.telegram = telegram
        self._processes: dict[str, Process] = {}
        self._ends: dict[str, float] = {}
        self._told_dead: set[str] = set()

    # -- waiting

    def leader(self, besides: Process | None = None) -> Process | None:
        """Who says so. `besides`: one that is not asked, because it could not say otherwise."""
        latest = [process for service in self.services if (process := self._latest(service)) not in (None, besides)]
        return next(
            (process for process in latest if process.client not in self._ends and process.role == "leader"), None
        )

    async def settled(self) -> Process:
        """Until one leads and polls, and the other stands by and is known to the backend; the leader."""

        def one_of_each() -> bool:
            latest = [self._latest(service) for service in self.services]
            return {process.role for process in latest if process is not None} == {"leader", "standby"}

        await self._reached(one_of_each)
        leader = self.leader()
        assert leader is not None
        await self._reached(lambda: self._polled(leader, max(leader.started, clock.now() - LATELY)))
        await self._reached(self._standby_is_known)
        return leader

    async def _standby_is_known(self) -> bool:
        """Does its record stand in the backend? Else a leader would not invite it."""
        raise NotImplementedError

    def processes(self) -> list[Process]:
        """All lives of all bots so far, the latest last."""
        for diary in self.diaries.iterdir():
            if "@" in diary.name and diary.name not in self._processes:
                self._processes[diary.name] = Process(diary.name, diary)
        return sorted(self._processes.values(), key=lambda process: process.started)

    def _latest(self, service: str) -> Process | None:
        return next((process for process in reversed(self.processes()) if process.service == service), None)

    def latest(self, service: str) -> Process:
        found = self._latest(service)
        assert found is not None, f"{service} never started"
        return found

    async def restarted(self, old: Process) -> None:
        """Until its service has a new process."""
        await self._reached(lambda: self.latest(old.service) != old)

    async def taken_over(self, old: Process, since: float) -> float:
        """Until another process leads and has polled: seconds from `since` to its first getUpdates."""

        # A paused one would say for ever that it leads.
        await self._reached(lambda: self.leader(besides=old))
        new = self.leader(besides=old)
        assert new is not None
        await self._reached(lambda: self._polled(new, since))
        return float((await self._polls(new, since))[0]["arrived"]) - since

    async def keeps_leading(self, leader: Process, seconds: float) -> None:
        """It leads still, and a poll of it arrived after so many seconds: longer than it trusted its lease then."""
        ended = len(leader.events("ended"))
        since = clock.now() + seconds
        await self._reached(lambda: self._polled(leader, since), seconds + PATIENCE)
        assert self.leader() == leader
        assert len(leader.events("ended")) == ended, "it lost its term meanwhile"

    async def somebody_polls_after(self, seconds: float) -> None:
        """A getUpdates arrived after so many seconds from now: longer than what is trusted of a lease today."""
        since = clock.now() + seconds

        async def polled() -> bool:
            return bool(await self.telegram.polls(since=since))

        await self._reached(polled, seconds + PATIENCE)

    async def _polls(self, process: Process, since: float) -> list[Json]:
        # Not all of them: at 200 updates a second they are thousands.
        return [poll for poll in await self.telegram.polls(since=since) if poll["client"] == process.client]

    async def _polled(self, process: Process, since: float) -> bool:
        return bool(await self._polls(process, since))

    async def _reached(self, condition: Callable[[], Any], within: float = PATIENCE) -> None:
        async def looked() -> bool:
            # Telegram's container may not answer yet; and the poller of a test must leave the processor to the bots.
            with contextlib.suppress(aiohttp.ClientError):
                answer = condition()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return True
            await asyncio.sleep(0.1)
            return False

        looked.__qualname__ = getattr(condition, "__qualname__", "it")
        await until(looked, timeout=within)

    # -- faults that Telegram must be told

    def died(self, process: Process) -> None:
        """It was killed, just now."""
        self._ends[process.client] = clock.now() + ON_ITS_WAY

    # -- the verdict

    async def traffic(self, rate: float = 20.0, chats: Sequence[int] = CHATS) -> None:
        await self.telegram.traffic_on(self.bot_id, rate=rate, chats=chats)

    async def judge(self) -> Report:
        """Stop the traffic, let everything be handled, and demand: never two live polls, nothing lost, each chat in
        order, nothing after a term or a death."""
        await self.telegram.traffic_off(self.bot_id)

        async def all_done() -> bool:
            report = await self._report()
            return not report.pending and not report.lost

        await self._reached(all_done)
        report = await self._report()
        wrong = ("overlapping_polls", "lost", "out_of_order", "conflicts_live", "sent_after_term")
        assert not any(getattr(report, name) for name in wrong), (report, report.findings)
        # A simulator on a busy machine reads late what had come in time.
        late = [poll for poll in report.findings["late_arrivals"] if poll["arrived"] - poll["sent"] > ON_ITS_WAY]
        assert not late, (report, late)
        return report

    async def _report(self) -> Report:
        for process in self.processes():
            await process.tell(self.telegram)
            if process.client not in self._told_dead and self._is_over(process):
                self._told_dead.add(process.client)
                await self.telegram.dead(process.client, at=self._ends[process.client])
        return await self.telegram.report()

    def _is_over(self, process: Process) -> bool:
        if process.client not in self._ends and process != self._latest(process.service):
            # It has a successor. What it wrote last it may still have sent.
            self._ends[process.client] = process.events()[-1]["at"] + ON_ITS_WAY
        return process.client in self._ends
