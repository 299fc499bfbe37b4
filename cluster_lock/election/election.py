"""Standby, leader, step down, for ever.

`Election` is the source of terms. It does not decide who leads: the lock does. It keeps the order: the work has ended
before the lock is given away (docs/design.md#end-before-release), no matter what ended the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.lease.guard import end_process
from cluster_lock.lease.threads import watch_threads
from cluster_lock.observer import SILENT, Ending, Observer
from cluster_lock.session import Session
from cluster_lock.session.invitation import Answer
from cluster_lock.values import EndCode, EndReason

from .leadership import Body, Role, StepDown, Term
from .source import HeldLock, LockSource, SessionLockSource
from .until_over import about, ended_by, until_over

log = logging.getLogger("cluster_lock.election")


class Election:
    """A `Leadership` over the locks of one session. Any number of `lead` and `run` may go on side by side.

    `observer`: told of every transition; by default the session's.
    """

    def __init__(self, session: Session | LockSource, *, observer: Observer | None = None) -> None:
        self._source = SessionLockSource(session) if isinstance(session, Session) else session
        self._observer = observer or (session.context.observer if isinstance(session, Session) else SILENT)
        self.kept = False
        """Does a keeper lead for this process? Then the keeper counts signals to stop, too."""
        self.page: str | None = None
        """Where a keeper shows how this process is, if one leads for it."""
        self._terms: dict[str, Term] = {}
        self._roles: dict[str, Role] = {}
        self._hooks: asyncio.Task[Any] | None = None
        self._reporting: list[Callable[[], Sequence[Mapping[str, Any]]]] = []
        self._stopping = asyncio.Event()
        self._stops: dict[str, asyncio.Event] = {}
        """By lock that is led: set when it is to be led no more."""
        self._stop_reason = EndReason("", EndCode.STOPPED)
        self._changed = asyncio.Event()
        watch_threads(asyncio.get_running_loop())

    def role(self, name: str) -> Role:
        return self._roles.get(name, Role.STOPPED)

    def term(self, name: str) -> Term | None:
        return self._terms.get(name)

    def handovers(self) -> Mapping[str, Mapping[str, Any]]:
        """What the terms under way would leave if they ended at this moment, by lock, as far as they have said so."""
        return {name: term.handover for name, term in self._terms.items() if term.handover}

    def reports(self) -> list[Mapping[str, Any]]:
        """What the work under the locks says about itself, to be shown: a plain mapping for each poller."""
        return [report for source in self._reporting for report in source()]

    @contextmanager
    def reporting(self, source: Callable[[], Sequence[Mapping[str, Any]]]) -> Iterator[None]:
        """In the block, `source()` is among the reports."""
        self._reporting.append(source)
        try:
            yield
        finally:
            self._reporting.remove(source)

    def stop(self, reason: str = "stopping", name: str | None = None) -> None:
        """`name`: only this lock; other locks, and jobs, go on."""
        because = EndReason.of(reason, EndCode.STOPPED)
        self._stop_reason = self._stop_reason or because
        if name is None:
            self._stopping.set()
            self._observer.stop(self._stop_reason)
        for lock in self._stops if name is None else {name} & self._stops.keys():
            self._stops[lock].set()
            if (term := self._terms.get(lock)) is not None:
                term.step_down(because)
        self._change()

    async def lead(self, name: str, body: Body, *, answer: Answer | None = None, settle: bool = True) -> None:
        stop = self._stops.setdefault(name, asyncio.Event())
        if self._stopping.is_set():
            stop.set()
        try:
            while not stop.is_set():
                self._set_role(name, Role.STANDBY)
                held = await self._stand_by(name, answer, stop)
                if held is None:
                    return
                request = await self._reign(held, body, settle, stop)
                if request is None:
                    return
                if request.cool_down and not stop.is_set():
                    log.info("%s: not contending for %g s: %s", name, request.cool_down, request.reason)
                    self._observer.cooling_down(name, request.cool_down, request.reason)
                    await self._cool_down(request.cool_down, stop)
        finally:
            self._stops.pop(name, None)
            self._set_role(name, Role.STOPPED)

    @contextmanager
    def nothing_led_yet(self) -> Iterator[None]:
        """The block runs foreign code (startup hooks) in this very task, and nothing is led before it has ended."""
        self._hooks = asyncio.current_task()
        try:
            yield
        finally:
            self._hooks = None

    async def run(self, job: Callable[[Term], Awaitable[Any]], name: str | None = None) -> Any:
        if self._hooks is not None and asyncio.current_task() is self._hooks:
            raise RuntimeError(
                "leadership.run(job) waits for a term, and none begins before the startup hooks have returned. Write"
                " task = asyncio.create_task(leadership.run(job)) in the hook, and keep the task; or start the job in"
                " on_elected"
            )
        while not self._stopping.is_set():
            changed = self._changed
            term = self._term_for(name)
            if term is None or term.closed or term.ended is not None or term.stepping_down:
                await changed.wait()
                continue
            task = term.spawn(_call(job, term), drains=False)
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()
            if not task.cancelled():
                return task.result()
        return None

    async def _cool_down(self, seconds: float, stop: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return

    def _term_for(self, name: str | None) -> Term | None:
        if name is not None:
            return self._terms.get(name)
        if len(self._roles) > 1:
            raise ValueError(f"several locks are led here, say which: {', '.join(sorted(self._roles))}")
        return next(iter(self._terms.values()), None)

    async def _stand_by(self, name: str, answer: Answer | None, stop: asyncio.Event) -> HeldLock | None:
        """Wait for the lock, answering invitations meanwhile; None when stopped."""
        taking = asyncio.ensure_future(self._source.take(name))
        answering = asyncio.ensure_future(self._source.answer_invitations(name, answer))
        stopping = asyncio.ensure_future(stop.wait())
        taken = False
        try:
            await asyncio.wait((taking, answering, stopping), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()  # it never returns, so this raises what broke it
            await end((answering, stopping))
            taken = taking.done() and not stop.is_set()
            return taking.result() if taken else None
        finally:
            if not taken:
                await finish(_put_back(taking, answering, stopping))

    async def _reign(self, held: HeldLock, body: Body, settle: bool, stop: asyncio.Event) -> StepDown | None:
        """One term, from the grant to the giving away. What ended it, or None when the body returned by itself."""
        try:
            if settle and held.origin.settles:
                await self._settle(held, stop)
        except BaseException:
            await finish(held.end(held.inherited))
            raise
        term = Term(
            held.name,
            held.fencing_token,
            held.origin,
            held.inherited,
            stop_at=lambda: held.stop_at,
            stop_time=self._source.timing.stop_time,
            verify=held.verify,
        )
        work: asyncio.Task[Any] | None = None
        try:
            if stop.is_set():
                term.step_down(self._stop_reason)  # nothing has begun, and nothing will
            elif held.is_valid():
                log.info("%s: leading, term %d, lock %s", held.name, held.fencing_token, held.origin, extra=about(held))
                work = term.begin(_call(body, term))
                self._terms[held.name] = term
                self._set_role(held.name, Role.LEADER)
                self._observer.term_began(held.name, held.fencing_token, held.origin)
                await until_over(term, held, work, self._source.timing, self._observer, self._more_for_threads)
            else:
                await held.wait_lost()  # before anything had begun
        finally:
            # Even when cancelled: nothing of the term may run when the lock is given away.
            await finish(self._finish(term, held, work))
        if held.loss is not None:
            if work is not None and not work.cancelled() and work.exception() is not None:
                log.error("%s: the work failed when it was stopped", held.name, exc_info=work.exception())
            return StepDown(held.loss)
        if work is not None and (term.request is None or not work.cancelled()):
            work.result()  # also a cancellation that was not ours: the caller of `lead` gets it
        return term.request

    async def _settle(self, held: HeldLock, stop: asyncio.Event) -> None:
        """Wait until what a leader before may still be doing has ended, or there is no reason to any more."""
        left = self._source.timing.settle_left(held.origin, held.since)
        log.info("%s: lock %s, the term begins in %.2f s", held.name, held.origin, left, extra=about(held))
        lost, stopping = asyncio.ensure_future(held.wait_lost()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((lost, stopping), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end((lost, stopping))

    async def _finish(self, term: Term, held: HeldLock, work: asyncio.Task[Any] | None) -> None:
        """End what still runs of the term, then give the lock away."""
        term.close()
        began = clock.now()
        left = {task for task in (work, *term.tasks) if task is not None and not task.done()}
        if held.loss is not None:
            term.ended = held.loss
            led = began - held.since
            fields = about(held, term.ended)
            log.warning("%s: lost after %.1f s, stopping the work: %s", held.name, led, term.ended, extra=fields)
        for task in left:
            task.cancel()
        if left:
            # On a loss without a limit: the guard has one.
            grace = None if held.loss is not None else self._source.timing.cancel_grace
            _, left = await asyncio.wait(left, timeout=grace)
        if left:
            self._give_up(held, ", ".join(task.get_name() for task in left))
        ended = await term.threads.ended(self._time_for_threads(term, held))
        if not ended and held.loss is None and (more := self._more_for_threads(term)):
            ended = await term.threads.ended(more)
        if not ended:
            self._give_up(held, f"work in threads ({len(term.threads.running)})")
        if term.ended is None:
            term.ended = ended_by(term.request)
        self._terms.pop(held.name, None)
        took = clock.now() - began
        how = await held.end(term.handover or held.inherited)
        match how:
            case Ending.HANDED_OVER:
                what = f"handed over to {term.heir} ({term.ended})"
            case Ending.RELEASED:
                what = f"lock released ({term.ended})"
            case Ending.UNCONFIRMED:
                what = f"but the release of the lock is not confirmed, trying on ({term.ended})"
            case Ending.LOST:
                why = term.ended if held.loss == term.ended else f"{term.ended}; lost meanwhile: {held.loss}"
                what = f"the work had ended {took:.2f} s after the loss ({why})"
        log.info("%s: not leading any more, %s", held.name, what, extra=about(held, term.ended))
        self._observer.term_ended(held.name, term.ended, how, term.heir if how is Ending.HANDED_OVER else None)
        self._set_role(held.name, Role.STANDBY)

    def _time_for_threads(self, term: Term, held: HeldLock) -> float | None:
        """They cannot be cancelled, so they have what handlers have: the drain. On a loss the guard has the limit."""
        if held.loss is not None:
            return None
        began = term.asked_at if term.asked_at is not None else clock.now()
        return max(0.0, began + self._source.timing.drain + self._source.timing.cancel_grace - clock.now())

    def _more_for_threads(self, term: Term) -> float:
        """Seconds beyond that, if work of the term is in threads. To end the process now would leave the lease to run
        down, for a ttl: no longer than that is the lock kept for a thread that may end any moment. Not under a keeper,
        which releases the lock when this process has ended."""
        if self.kept or not term.threads.running:
            return 0.0
        ttl = self._source.timing.ttl
        log.warning(
            "%s: work goes on in %d threads, which nobody can cancel: the lock is given away when it has ended, or this"
            " process ends in %g s",
            *(term.name, len(term.threads.running), ttl),
        )
        return ttl

    def _give_up(self, held: HeldLock, what: str) -> NoReturn:
        end_process(
            f"{held.name}: {what} does not end, and the lock is not given away while it runs (the next leader waits for"
            " the lease to end)"
        )

    def _set_role(self, name: str, role: Role) -> None:
        self._roles[name] = role
        if role is Role.STANDBY:
            self._observer.standing_by(name)
        elif role is Role.STOPPED:
            self._observer.stopped(name)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _put_back(taking: asyncio.Future[HeldLock], *beside: asyncio.Future[Any]) -> None:
    """Stop taking the lock, and what went on beside; if it was taken in this very moment, give it back."""
    await end((taking, *beside))
    if not taking.cancelled():
        held = taking.result()
        await held.end(held.inherited)


async def _call(work: Callable[[Term], Awaitable[Any]], term: Term) -> Any:
    return await work(term)
