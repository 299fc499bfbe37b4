"""From a plan to an exit code: the instance's lock, the session, and a worker or a job under it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from cluster_lock.contest import SessionContest
from cluster_lock.election import Election
from cluster_lock.health import Board, following, open_health
from cluster_lock.health.peers import SessionPeers
from cluster_lock.process import InstanceLock
from cluster_lock.session import Session

from .job import Job
from .keeper import FIRST_PAUSE, LONGEST_PAUSE, Keeper
from .plan import Plan
from .reaping import reaping
from .stopping import Stopping


class KeptBoard(Board):
    """Also tells the worker, or the job, of each renewal."""

    to: Keeper | Job | None = None

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
    with InstanceLock(plan.instance, plan.state_directory) if plan.lock is None else nullcontext() as instance:
        async with reaping(), open_health(board, plan.health) as url, _session(plan, board, url) as session:
            if instance is not None:
                instance.say(health=url)
            if plan.lock is not None:
                return await _run_job(plan, plan.lock, session, stopping, board)
            board.to = keeper = Keeper(session, plan.command, stopping, board, restart=plan.restart)
            stopping.listen(keeper.pass_on)
            return await keeper.run()


@asynccontextmanager
async def _session(plan: Plan, board: Board, url: str | None) -> AsyncIterator[Session]:
    session = Session(
        plan.driver(),
        instance=plan.instance,
        timing=plan.timing,
        health=url,
        config=plan.fingerprint,
        fencing_floor=plan.fencing_floor,
        fail_fast=plan.fail_fast,
        observer=board,
    )
    board.peers = SessionPeers(session)
    async with following(board), session:
        yield session


async def _run_job(plan: Plan, lock: str, session: Session, stopping: Stopping, board: KeptBoard) -> int:
    election = Election(SessionContest(session, wait=plan.wait), observer=board)
    pause = FIRST_PAUSE
    while True:
        board.to = job = Job(lock, plan.command, plan.timing, stopping, board)
        stopping.listen(job.pass_on)
        await job.run(election)
        if job.code is None or stopping.asked is not None:
            return job.code if job.code is not None else 128 + (stopping.asked or signal.SIGTERM)
        if plan.restart == "never" or (plan.restart == "on-failure" and job.code == 0):
            return job.code
        if await stopping.within(pause):
            return 128 + (stopping.asked or signal.SIGTERM)
        pause = min(LONGEST_PAUSE, pause * 2)
