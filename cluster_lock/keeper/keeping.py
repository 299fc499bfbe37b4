"""From a plan to an exit code: the instance's lock, the session, and a worker or a job under it."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from cluster_lock.contest import SessionContest
from cluster_lock.election import Election
from cluster_lock.observer import Observer
from cluster_lock.process import InstanceLock
from cluster_lock.session import Session

from .job import Job
from .keeper import Keeper
from .plan import Plan
from .reaping import reaping
from .stopping import Stopping


class _Relaying(Observer):
    """Tells the worker, or the job, of each renewal."""

    def __init__(self) -> None:
        self.to: Keeper | Job | None = None

    def lease_renewed(self, deadline: float, took: float) -> None:
        if self.to is not None:
            self.to.renewed(deadline)


async def keep(plan: Plan) -> int:
    """Run what the plan says until it has ended, or a signal came. The exit code."""
    stopping, observer = Stopping(), _Relaying()
    session = Session(
        plan.driver(),
        instance=plan.instance,
        timing=plan.timing,
        config=plan.fingerprint,
        fencing_floor=plan.fencing_floor,
        fail_fast=plan.fail_fast,
        observer=observer,
    )
    with ExitStack() as stack:
        if plan.lock is None:
            stack.enter_context(InstanceLock(plan.instance, plan.state_directory))
        async with reaping(), session:
            if plan.lock is None:
                observer.to = keeper = Keeper(session, plan.command, stopping, restart=plan.restart)
                stopping.listen(keeper.pass_on)
                return await keeper.run()
            return await _run_job(plan, plan.lock, session, stopping, observer)


async def _run_job(plan: Plan, lock: str, session: Session, stopping: Stopping, observer: _Relaying) -> int:
    election = Election(SessionContest(session, wait=plan.wait))
    pause = 0.5
    while True:
        observer.to = job = Job(lock, plan.command, plan.timing, stopping)
        stopping.listen(job.pass_on)
        await job.run(election)
        if job.code is None or stopping.asked is not None:
            return job.code if job.code is not None else 128 + (stopping.asked or signal.SIGTERM)
        if plan.restart == "never" or (plan.restart == "on-failure" and job.code == 0):
            return job.code
        if await stopping.within(pause):
            return 128 + (stopping.asked or signal.SIGTERM)
        pause = min(30.0, pause * 2)
