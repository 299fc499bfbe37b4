"""From a plan to an exit code: the instance's lock, the session, and a worker or a job under it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.election import Election
from cluster_lock.election.source import SessionLockSource
from cluster_lock.errors import AlreadyRunning, ClusterLockError, NotStarted
from cluster_lock.health import Board, following, open_health
from cluster_lock.health.opening import page_after
from cluster_lock.health.peers import SessionPeers
from cluster_lock.process import InstanceLock
from cluster_lock.session import Session

from .again import StartBackoff, spoken
from .job import LockedCommand
from .keeper import Keeper
from .left_over import end_left_over
from .plan import KeeperSpec
from .reaping import reaping
from .slots import slot, successor
from .stopping import KeeperStopping

log = logging.getLogger("cluster_lock.keeper")

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the instance that we replace has ended."""


class KeptBoard(Board):
    """Also tells the worker, or the job, of each renewal, and of signals."""

    to: Keeper | LockedCommand | None = None

    def pass_on(self, number: int) -> bool:
        """A signal that is for the worker, or for the command. False: nobody is there for it."""
        return self.to is not None and self.to.pass_on(number)

    def lease_renewed(self, deadline: float, took: float) -> None:
        super().lease_renewed(deadline, took)
        if self.to is not None:
            self.to.renewed(deadline)


async def keep(plan: KeeperSpec) -> int:
    """Run what the plan says until it has ended, or a signal came. The exit code."""
    stopping = KeeperStopping()
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
        await end_left_over(plan.scope)
        await stack.enter_async_context(reaping())
        if plan.lock is not None:
            session.context.identity.health = await stack.enter_async_context(open_health(board, plan.health))
        elif not plan.replaces:
            named = stack.enter_context(slot(plan.instance, plan.name, plan.state_directory))
            await _show(plan, board, session, stack, named)
            await stack.enter_async_context(_beside(_say_ready(board, session, named)))
        else:
            # Before the worker starts: no successor is ever without a name under which it can be found and ended.
            coming = _stand_by(plan)
            stack.callback(coming.release)
            # Records are written before the page can be served where the one before us serves its own.
            _, before = slot(plan.instance, plan.name, plan.state_directory).look()
            session.context.identity.health = page_after(plan.health, before.health if before is not None else None)
            await stack.enter_async_context(_beside(_succeed(plan, board, session, stack, coming)))
        await stack.enter_async_context(following(board))
        await stack.enter_async_context(session)
        if plan.lock is not None:
            return await _run_job(plan, plan.lock, session, stopping, board)
        board.to = keeper = Keeper(session, plan, stopping, board)
        return await keeper.run()


async def _show(plan: KeeperSpec, board: Board, session: Session, stack: AsyncExitStack, named: InstanceLock) -> None:
    """Show our health where the instance of this name does."""
    session.context.identity.health = await stack.enter_async_context(open_health(board, plan.health))
    named.say(health=session.context.identity.health, ready=_is_ready(board))


async def _say_ready(board: Board, session: Session, named: InstanceLock) -> None:
    """Say so under our name when the worker could lead."""
    while not _is_ready(board):
        await board.changed.wait()
    named.say(health=session.context.identity.health)


def _is_ready(board: Board) -> bool:
    """Has the worker come so far that it asks for its lock?"""
    return any(lock.role in ("standby", "leader") for lock in board.locks.values())


def _stand_by(plan: KeeperSpec) -> InstanceLock:
    """The name of the one that is about to take the instance's place, held by us. Raises AlreadyRunning."""
    coming = successor(plan.instance, plan.name, plan.state_directory)
    try:
        coming.take()
    except AlreadyRunning as error:
        _, info = coming.look()
        who = f"process {info.pid}" if info is not None else "a process that has not said which it is"
        raise AlreadyRunning(
            f"instance {plan.instance!r} is being restarted already: {who} stands by to take its place"
            f" (lock file {coming.path}). Wait for that, or end that process."
        ) from error
    return coming


async def _succeed(
    plan: KeeperSpec, board: Board, session: Session, stack: AsyncExitStack, coming: InstanceLock
) -> None:
    """Stand by beside the one that has the name, say so as its `successor`, and take the name when it is free."""
    named = slot(plan.instance, plan.name, plan.state_directory)
    said = False
    try:
        while True:
            try:
                stack.enter_context(named)
                break
            except AlreadyRunning:
                if not said and _is_ready(board):
                    coming.say()
                    said = True
                await asyncio.sleep(LOOK_EVERY)
        coming.release()
        await _show(plan, board, session, stack, named)
    except ClusterLockError as error:
        # It leads perhaps, and the one before is gone: a bot without a health page is better than none.
        log.error("%s has ended, and not all that it had can be had: %s", plan.instance, error)
    else:
        await _say_ready(board, session, named)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        await end([task])
        if not task.cancelled():
            task.result()


async def _run_job(plan: KeeperSpec, lock: str, session: Session, stopping: KeeperStopping, board: KeptBoard) -> int:
    election = Election(SessionLockSource(session, wait=plan.wait), observer=board)
    backoff = StartBackoff()
    while True:
        board.to = job = LockedCommand(lock, plan, session, stopping, board)
        began = clock.now()
        try:
            await job.run(election)
            code, reason = job.code, f"the command ended with {spoken(job.code or 0)}"
        except NotStarted as error:
            if plan.restart == "never":
                raise
            code, reason = error.exit_code, str(error)
        if code is None or stopping.asked is not None:
            return code if code is not None else 128 + (stopping.asked or signal.SIGTERM)
        if plan.restart == "never" or (plan.restart == "on-failure" and code == 0):
            return code
        wait = backoff.after(clock.now() - began)
        log.error("%s, running it again in %.1f s", reason, wait)
        if await stopping.within(wait):
            return 128 + (stopping.asked or signal.SIGTERM)
