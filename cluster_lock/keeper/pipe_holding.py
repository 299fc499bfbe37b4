"""A lock that the keeper holds, as the work under it sees it: valid as long as renewals come through the pipe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.errors import ClusterLockError, LockLost
from cluster_lock.lease.guard import Guard, NoGuard
from cluster_lock.observer import Ending
from cluster_lock.session.invitation import Willing
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import EndCode, EndReason, Origin, Timing

from .link import LinkClosed, PipeLink

log = logging.getLogger("cluster_lock.keeper")


@dataclass(slots=True)
class PipeLease:
    """The keeper's lease: what all locks at this end of a pipe have in common."""

    link: PipeLink
    timing: Timing
    guard: Guard | NoGuard
    deadline: float = float("-inf")
    """The moment (`clock.now()`) after which the lease is not trusted. Moved by the thread that reads the pipe."""


class PipeHeldLock:
    """One lock that the keeper holds for us. `ended(self)` is called when nothing of its term is left here."""

    def __init__(
        self, lease: PipeLease, name: str, given: Mapping[str, Any], ended: Callable[[PipeHeldLock], None]
    ) -> None:
        self.name = name
        self.fencing_token: int = given["token"]
        self.origin = Origin(given["origin"])
        self.inherited: Mapping[str, Any] = given["inherited"]
        self.since = clock.now()
        self.loss: EndReason | None = None
        self._lease, self._ended = lease, ended
        self._lost = asyncio.Event()
        self._cut = float("inf")
        self._condition: Willing | None = None
        # The thread may have moved it on since the answer was written.
        lease.deadline = max(lease.deadline, given["deadline"])
        self._guard = lease.guard.watch(lease.deadline, f"the work under {name}")

    @property
    def stop_at(self) -> float:
        return min(self._lease.deadline - self._lease.timing.stop_time, self._cut)

    def is_valid(self) -> bool:
        return self.loss is None and clock.now() < self.stop_at

    async def wait_lost(self) -> EndReason:
        waiting = asyncio.ensure_future(self._lost.wait())
        try:
            while not self._lost.is_set():
                left = self.stop_at - clock.now()
                if left <= 0:
                    self.lose(self._silence())
                await asyncio.wait([waiting], timeout=min(max(left, 0.01), 0.5))
        finally:
            await end([waiting])
        assert self.loss is not None
        return self.loss

    def _silence(self) -> EndReason:
        """Why it is over when nothing was heard: in the words of the one that renews, and with the same times."""
        timing = self._lease.timing
        age = clock.now() - (self._lease.deadline + timing.margin - timing.ttl)
        text = f"the lease was last renewed {age:.1f} s ago (ttl {timing.ttl:g} s), of all that the keeper told"
        return EndReason(text, EndCode.NOT_RENEWED)

    async def verify(self) -> None:
        await self._lease.link.call("verify", name=self.name, token=self.fencing_token)
        if not self.is_valid():
            raise LockLost(f"{self.name}: {self.loss or 'the lease was not renewed in time'}")

    async def find_heir(self, willing: Willing | None, to: str | None = None) -> str | None:
        self._condition = willing
        conditional = willing is not None
        heir: str | None = await self._lease.link.call(
            "find_heir", name=self.name, token=self.fencing_token, conditional=conditional, to=to
        )
        return heir

    async def wait_asked(self) -> Ask:
        return Ask(**await self._lease.link.call("wait_asked", name=self.name, token=self.fencing_token))

    def reply(self, reply: Reply) -> None:
        self._lease.link.tell("reply", name=self.name, token=self.fencing_token, reply=asdict(reply))

    async def is_willing(self, answer: Mapping[str, Any]) -> bool:
        """What the condition of the step-down says to a contender's answer."""
        said = self._condition(answer) if self._condition is not None else True
        return said if isinstance(said, bool) else await said

    async def end(self, handover: Mapping[str, Any]) -> Ending:
        self._guard.done()
        self._ended(self)
        try:
            return Ending(
                await self._lease.link.call("end", name=self.name, token=self.fencing_token, handover=handover)
            )
        except LinkClosed:
            return Ending.LOST  # with the keeper its lease is gone, or will be
        except ClusterLockError as error:
            log.info("%s: the keeper had ended the term already: %s", self.name, error)
            return Ending.LOST

    def moved(self, deadline: float) -> None:
        """In the thread: the lease was renewed."""
        if self._cut == float("inf"):
            self._guard.move(deadline)

    def cut(self) -> None:
        """In the thread: it is over, and whatever still runs after `stop_time` ends with the process."""
        self._cut = min(self._cut, clock.now())
        self._guard.move(min(self._lease.deadline, clock.now() + self._lease.timing.stop_time))

    def lose(self, reason: EndReason) -> None:
        """In the loop: the same, and the work is told."""
        if self.loss is None:
            self.cut()
            self.loss = reason
            self._lost.set()
