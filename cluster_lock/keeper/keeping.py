"""From a plan to an exit code: the instance's lock, the session, and a worker or a job under it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cluster_lock import clock
from cluster_lock.contest import SessionContest
from cluster_lock.election import Election
from cluster_lock.errors import AlreadyRunning, ClusterLockError
from cluster_lock.health import Board, following, open_health
from cluster_lock.health.peers import SessionPeers
from cluster_lock.process import InstanceLock
from cluster_lock.session import Session
from cluster_lock.tasks import end

from .again import Backoff, spoken
from .job import Job
from .keeper import Keeper
from .names import successor_of
from .plan import Plan
from .reaping import reaping
from .stopping import Stopping

log = logging.getLogger("cluster_lock.keeper")

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the instance that we replace has ended."""


class KeptBoard(Board):
    """Also tells the worker, or the job, of each renewal, and of signals."""

    to: Keeper | Job | None = None

    def pass_on(self, number: int) -> None:
        """A signal that is for the worker, or for the command."""
        if self.to is not None:
            self.to.pass_on(number)

    def lease_renewed(self, deadline: float, took: float) -> None:
        super().lease_renewed(deadline, took)
        if self.to is not None:
            self.to.renewed(deadline)


async def keep(plan: Plan) -> int:
    """Run what the plan says until it has ended, or a signal came. The exit code."""
    stopping = Stopping()
    board = KeptBoard(
        plan.instance,
        worker=plan.lock is None,
        backend=plan.backend,
        stall_limit=plan.timing.stall_limit,
        secrets=plan.secrets,
    )
    session = Session(
        plan.driver(),
        instance=plan.instance,
        timing=plan.timing,
        config=plan.fingerprint,
        fencing_floor=plan.fencing_floor,
        fail_fast=plan.fail_fast,
        observer=board,
    )
    board.peers = SessionPeers(session)
    stopping.listen(board.pass_on)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(reaping())
        if plan.lock is not None:
            session.health = await stack.enter_async_context(open_health(board, plan.health))
        elif not plan.replaces:
            await _take_name(plan, board, session, stack)
        else:
            await stack.enter_async_context(_succeeding(plan, board, session, stack))
        await stack.enter_async_context(following(board))
        await stack.enter_async_context(session)
        if plan.lock is not None:
            return await _run_job(plan, plan.lock, session, stopping, board)
        board.to = keeper = Keeper(session, plan.command, stopping, board, restart=plan.restart, name=plan.name)
        return await keeper.run()


async def _take_name(plan: Plan, board: Board, session: Session, stack: AsyncExitStack) -> None:
    """Be the instance of that name on this host, and show our health where it does. Raises AlreadyRunning."""
    instance = stack.enter_context(InstanceLock(plan.instance, plan.state_directory))
    session.health = await stack.enter_async_context(open_health(board, plan.health))
    instance.say(health=session.health)


@asynccontextmanager
async def _succeeding(plan: Plan, board: Board, session: Session, stack: AsyncExitStack) -> AsyncIterator[None]:
    """Stand by beside the one that has the name, say so under a name of our own, and take the name when it is free."""

    async def succeed() -> None:
        with InstanceLock(successor_of(plan.instance), plan.state_directory) as successor:
            said = False
            while True:
                try:
                    await _take_name(plan, board, session, stack)
                except AlreadyRunning:
                    if not said and any(lock.role in ("standby", "leader") for lock in board.locks.values()):
                        successor.say(ready=True)
                        said = True
                    await asyncio.sleep(LOOK_EVERY)
                except ClusterLockError as error:
                    # It leads perhaps, and the one before is gone: a bot without a health page is better than none.
                    log.error("%s has ended, and not all that it had can be had: %s", plan.instance, error)
                    return
                else:
                    return

    succeeding = asyncio.ensure_future(succeed())
    try:
        yield
    finally:
        await end([succeeding])
        if not succeeding.cancelled():
            succeeding.result()


async def _run_job(plan: Plan, lock: str, session: Session, stopping: Stopping, board: KeptBoard) -> int:
    election = Election(SessionContest(session, wait=plan.wait), observer=board)
    backoff = Backoff()
    while True:
        board.to = job = Job(lock, plan.command, plan.timing, stopping, board)
        began = clock.now()
        await job.run(election)
        if job.code is None or stopping.asked is not None:
            return job.code if job.code is not None else 128 + (stopping.asked or signal.SIGTERM)
        if plan.restart == "never" or (plan.restart == "on-failure" and job.code == 0):
            return job.code
        wait = backoff.after(clock.now() - began)
        log.error("the command ended with %s, running it again in %.1f s", spoken(job.code), wait)
        if await stopping.within(wait):
            return 128 + (stopping.asked or signal.SIGTERM)
