"""A `Leadership` without a backend: a test begins and ends its terms, and owns their deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election.leadership import Body, Role, Term
from cluster_lock.session.invitation import Answer
from cluster_lock.values import EndCode, EndReason, Origin, Timing

FAR = 1e9


class TermDouble:
    """One term that a test holds in its hand. `stop_at` is the moment until which it is valid."""

    def __init__(
        self,
        *,
        name: str = "telegram/42",
        token: int = 7,
        origin: Origin = Origin.HANDED_OVER,
        inherited: Mapping[str, Any] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.stop_at = clock.now() + FAR
        self.verified = 0
        self.verify_error: Exception | None = None
        self.term = Term(
            name,
            token,
            origin,
            inherited or {},
            stop_at=lambda: self.stop_at,
            stop_time=(timing or Timing()).stop_time,
            verify=self._verify,
        )
        self.work: asyncio.Task[Any] | None = None

    async def _verify(self) -> None:
        self.verified += 1
        if self.verify_error is not None:
            raise self.verify_error

    def begin(self, body: Body) -> None:
        """Start the body in this term."""
        self.work = asyncio.ensure_future(_run(body, self.term))

    async def step_down(self, heir: str | None = None) -> dict[str, Any]:
        """Ask the body to end in good order, wait for that; what it left for the next leader."""
        assert self.work is not None
        self.term.begin_step_down(heir)
        await self.work
        assert not self.term.tasks, "handlers still run after the body has returned"
        self.term.ended = EndReason("stepped down", EndCode.STEP_DOWN)
        return self.term.handover

    async def lose(self, reason: str = "the key was deleted") -> None:
        """Take the lock away and stop the work, as the watchdog does; return when all of it has ended."""
        self.stop_at = clock.now()
        await self.stop(reason)

    async def stop(self, reason: str) -> None:
        assert self.work is not None
        self.term.ended = EndReason(reason, EndCode.LOST)
        await end((self.work, *self.term.tasks))


async def _run(body: Body, term: Term) -> Any:
    return await body(term)


class LeadershipDouble:
    """`Leadership` by hand: `grant(name)` begins a term of a lock that somebody stands by for."""

    def __init__(self, timing: Timing | None = None) -> None:
        self._timing = timing or Timing()
        self._standing: dict[str, asyncio.Future[TermDouble]] = {}
        self.terms: dict[str, TermDouble] = {}
        self.answers: dict[str, Answer | None] = {}
        self.stopping = asyncio.Event()
        self.reason: EndReason | None = None
        """With which it was stopped."""
        self.token = 0

    def role(self, name: str) -> Role:
        if name in self.terms:
            return Role.LEADER
        return Role.STANDBY if name in self._standing else Role.STOPPED

    def term(self, name: str) -> Term | None:
        return self.terms[name].term if name in self.terms else None

    def is_standing_by(self, name: str) -> bool:
        return name in self._standing

    def grant(
        self, name: str, *, origin: Origin = Origin.HANDED_OVER, inherited: Mapping[str, Any] | None = None
    ) -> TermDouble:
        """The lock is ours: begin a term."""
        self.token += 1
        double = TermDouble(name=name, token=self.token, origin=origin, inherited=inherited, timing=self._timing)
        self._standing.pop(name).set_result(double)
        return double

    async def lead(self, name: str, body: Body, *, answer: Answer | None = None, settle: bool = True) -> None:
        self.answers[name] = answer
        while not self.stopping.is_set():
            granted: asyncio.Future[TermDouble] = asyncio.get_running_loop().create_future()
            self._standing[name] = granted
            stopping = asyncio.ensure_future(self.stopping.wait())
            try:
                await asyncio.wait((granted, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end([stopping])
            if not granted.done():
                self._standing.pop(name)
                return
            double = granted.result()
            self.terms[name] = double
            double.begin(body)
            assert double.work is not None
            try:
                await self._until_over(double)
            finally:
                await finish(end((double.work, *double.term.tasks)))
                del self.terms[name]
            if double.work.cancelled() or double.term.ended is not None:
                continue
            double.work.result()
            double.term.ended = EndReason("over", EndCode.WORK_DONE)
            if double.term.request is None:
                return

    async def _until_over(self, double: TermDouble) -> None:
        assert double.work is not None
        asked = asyncio.ensure_future(double.term.wait_request())
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((double.work, asked, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not double.work.done():
                double.term.step_down("stopping")
                double.term.begin_step_down()
                await asyncio.wait([double.work])
        finally:
            await end((asked, stopping))

    async def run(self, job: Callable[[Term], Awaitable[Any]], name: str | None = None) -> Any:
        raise NotImplementedError("the double leads, it does not run jobs")

    def stop(self, reason: str = "stopping") -> None:
        self.reason = EndReason.of(reason, EndCode.STOPPED)
        self.stopping.set()
