"""What the work under a lock sees of it: `Term`, one leadership, and `Leadership`, the source of terms.

Nothing above this module knows where terms come from: from an election in this process, or through a pipe from a parent
process that holds the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cluster_lock import clock
from cluster_lock.errors import LockLost
from cluster_lock.lease.threads import Threads
from cluster_lock.session.invitation import Answer, Willing
from cluster_lock.session.requests import Ask
from cluster_lock.values import EndCode, EndReason, Origin


class Role(StrEnum):
    """What this process is for one lock."""

    STANDBY = "standby"
    """It waits for the lock, ready to lead."""
    LEADER = "leader"
    """It holds the lock, and the work runs."""
    STOPPED = "stopped"
    """It does not contend."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """A request to end a term in good order."""

    reason: EndReason
    """A sentence for people, and its code."""
    cool_down: float = 0.0
    """Seconds after the term in which this process does not contend again."""
    willing: Willing | None = None
    """Step down only for a contender whose answer satisfies this; None: for any."""
    to: str | None = None
    """Step down only for the contender of this instance; None: for any."""
    ask: Ask | None = None
    """The request of a person over the backend, who gets an answer; None: it came from this process."""

    @property
    def conditional(self) -> bool:
        """Does the term go on if nobody takes over?"""
        return self.willing is not None or self.to is not None or self.ask is not None


class Term:
    """One leadership of one lock. Handlers get it as `term`.

    Its parameters are for the source of terms: `stop_at()`, the moment (`clock.now()`) at which the work is cancelled;
    `stop_time`, the seconds that it gets then; `verify()`, which asks the backend.
    """

    def __init__(
        self,
        name: str,
        fencing_token: int,
        origin: Origin,
        inherited: Mapping[str, Any],
        *,
        stop_at: Callable[[], float],
        stop_time: float,
        verify: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        """Of the lock."""
        self.fencing_token = fencing_token
        """Grows from term to term. Store it with each write, and have the store reject a smaller one."""
        self.origin = origin
        """How the grant came about."""
        self.inherited = inherited
        """What the leader before left in its `handover`."""
        self.handover: dict[str, Any] = {}
        """For the next leader: the work may fill it until the term ends, with JSON values and no secret."""
        self.since = clock.now()
        """The moment (`clock.now()`) at which the term began."""
        self.ended: EndReason | None = None
        """Why the term is over, one sentence and its code, or None. Once set it stays."""
        self.request: StepDown | None = None
        """The request to step down that counts, or None."""
        self.heir: str | None = None
        """The instance that was invited and said yes, once the step-down has begun; None: nobody, so nobody may ever
        read `handover`."""
        self._stop_at = stop_at
        self._stop_time = stop_time
        self._verify = verify
        self._requested = asyncio.Event()
        self._begun = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._drains: set[asyncio.Task[Any]] = set()
        self.threads = Threads()
        """What the work has put into threads: the lock is not given away while any of it runs."""
        self.asked_at: float | None = None
        """The moment (`clock.now()`) at which the step-down began; None before."""
        self.closed = False
        """No task begins any more; those that run are being ended."""

    @property
    def stop_at(self) -> float:
        """The moment (`clock.now()`) at which the work is cancelled unless a renewal moves it on."""
        return self._stop_at()

    @property
    def deadline(self) -> float:
        """The moment after which the lease is not trusted; nothing of the term runs any more then."""
        return self._stop_at() + self._stop_time

    @property
    def remaining(self) -> float:
        """Seconds until `stop_at`; 0 when the term is over."""
        return max(0.0, self.stop_at - clock.now()) if self.ended is None else 0.0

    def is_valid(self) -> bool:
        """Is the lock provably held at this moment? Decided by the clock alone, so a loop that was blocked, or a
        process that was stopped, gets the right answer in the very step in which it wakes up."""
        return self.ended is None and clock.now() < self._stop_at()

    def check(self) -> None:
        """Raise LockLost unless the lock is provably held."""
        if not self.is_valid():
            raise LockLost(f"{self.name}: {self.ended or 'the lease was not renewed in time'}")

    async def verify(self) -> None:
        """Ask the backend, by a linearizable read, whether the lock is still ours. Raises LockLost (and the term ends)
        if it is not, BackendUnavailable or BackendRefused if it cannot be known; the lease decides then."""
        await self._verify()

    @property
    def stepping_down(self) -> bool:
        """The step-down has begun: take no new work, finish what is under way, return."""
        return self._begun.is_set()

    async def wait_step_down(self) -> None:
        """Return when the step-down has begun."""
        await self._begun.wait()

    def step_down(
        self,
        reason: str,
        *,
        cool_down: float = 0.0,
        willing: Willing | None = None,
        to: str | None = None,
        ask: Ask | None = None,
    ) -> None:
        """Ask for the term to end in good order. The first request counts, but one without a condition overrules one
        with. An heir is invited first, while the work goes on; then `wait_step_down` returns.

        `cool_down`: do not contend again for so many seconds. `willing`: step down only if a contender answers the
        invitation with something for which this is true; otherwise the term goes on as if nobody had asked.
        `to`: the same, and only the contender of this instance is invited. `ask`: the same, and this request of a
        person over the backend is answered.
        """
        request = StepDown(EndReason.of(reason, EndCode.STEP_DOWN), cool_down, willing, to, ask)
        if self.request is None or (self.request.conditional and not request.conditional):
            self.request = request
            self._requested.set()

    async def wait_request(self) -> StepDown:
        """For the source of the term: return the request to step down, once there is one."""
        await self._requested.wait()
        assert self.request is not None
        return self.request

    def begin_step_down(self, heir: str | None = None) -> None:
        """For the source of the term: the heir is known (or there is none); the work is to stop now."""
        self.heir = heir
        self.asked_at = clock.now()
        self._begun.set()

    def decline_step_down(self) -> None:
        """For the source of the term: nobody was willing; forget the request."""
        self.request = None
        self._requested.clear()

    def spawn(self, work: Coroutine[Any, Any, Any], *, drains: bool = True) -> asyncio.Task[Any]:
        """A task that ends with the term, before the lock is given away. At a step-down it has the time of a handler
        (`drain`) to end by itself, and is cancelled then, with a line in the log; when the lease is lost it is
        cancelled at once. `drains=False`: for work without an end, which nobody waits for: it is cancelled when the
        rest has ended. Raises LockLost when the term is over, or about to be."""
        if self.closed or self.ended is not None:
            work.close()
            raise LockLost(f"{self.name}: {self.ended or 'the term is ending'}")
        task = self.begin(work)
        for tasks in (self._tasks, self._drains) if drains else (self._tasks,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return task

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """For the source of the term: a task whose threads are the term's."""
        context = self.threads.context()
        task = asyncio.get_running_loop().create_task(work, context=context)
        context.run(_work.set, (self, task))
        return task

    async def drain(self, seconds: float) -> frozenset[asyncio.Task[Any]]:
        """For the body, at a step-down: wait until all spawned tasks have ended, also those that are spawned meanwhile;
        after so many seconds cancel the rest. Returns the tasks that were cancelled."""
        until = clock.now() + seconds
        while (left := frozenset(task for task in self._drains if not task.done())) and clock.now() < until:
            await asyncio.wait(left, timeout=until - clock.now(), return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return left

    def close(self) -> None:
        """For the source of the term: from now on no task begins, so that `tasks` are the last ones."""
        self.closed = True

    @property
    def tasks(self) -> frozenset[asyncio.Task[Any]]:
        return frozenset(self._tasks)


_work: ContextVar[tuple[Term, asyncio.Task[Any]] | None] = ContextVar("cluster_lock_work", default=None)


def current_work() -> tuple[Term, asyncio.Task[Any]] | None:
    """The term under which the caller works, and the task of the term that the caller is, or was started by."""
    return _work.get()


Body = Callable[[Term], Awaitable[Any]]


class Leadership(Protocol):
    """A source of terms. One per process; locks by name."""

    def role(self, name: str) -> Role: ...

    def term(self, name: str) -> Term | None:
        """The current term of `name` in this process, if it leads."""
        ...

    async def lead(self, name: str, body: Body, *, answer: Answer | None = None, settle: bool = True) -> None:
        """Stand by for `name`; run `body(term)` for each term of ours; go back to standby; for ever.

        When the term is asked to step down (`term.wait_step_down()`), the body stops taking work, finishes what is
        under way and returns within `drain + cancel_grace` seconds; the lease goes on being renewed meanwhile. When the
        lease is lost, the body is cancelled and must end within `stop_time`. What swallows that is ended with the
        process. The lock is given away only after the body, all tasks of the term, and what they have put into threads
        of the loop's default executor have ended; a thread that does not within the time for a step-down ends with the
        process.

        Under a lock that was found free the term, and the body with it, begins `timing.settle` seconds after the
        grant: a leader that has lost it (its key deleted, its session destroyed) may hear of it later than we do.
        `settle=False`: at once, for a body that does no harm beside another one.

        Returns after `stop()`, or when the body returns although nobody asked. Raises what the body raises, after
        the lock was released. `answer` is called when a leader invites us to be its heir; its JSON goes to that leader.
        """
        ...

    async def run(self, job: Callable[[Term], Awaitable[Any]], name: str | None = None) -> Any:
        """Run `job(term)` in each term of `name` (default: the one lock led here) until it returns once; its result.

        A job that the end of its term cancels begins again in the next one; a job that returns, for any reason, is
        done. None if `stop()` came first. Raises RuntimeError in what must return before anything is led, such as a
        startup hook: have a task of its own wait for it there, `asyncio.create_task(leadership.run(job))`.
        """
        ...

    def stop(self, reason: str = "stopping") -> None:
        """Step down everywhere in good order, and contend no more: every `lead` returns."""
        ...
