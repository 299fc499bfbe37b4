"""The faults, each with the wait for what must follow it.

Nothing waits for a fixed time here, but where the time is the fault.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from cluster_lock import clock

from .changes import DemoFault
from .fleet import STARVED, DemoFailed
from .plan import DemoPlan
from .stage import CHANGE_WITHIN, Stage

Round = Callable[[Stage], Awaitable[None]]


def rounds(plan: DemoPlan) -> list[Round]:
    """In the order in which they need the fewest standbys to be back."""
    chosen: list[Round] = [graceful]
    if sys.platform != "win32":
        chosen += [short_stop, crash]
    if plan.restarts_backend:
        chosen.append(backend_restart)
    if sys.platform == "linux":  # elsewhere nothing can end a process that is stopped
        chosen.append(stall)
    return chosen


async def graceful(stage: Stage) -> None:
    """SIGTERM: the leader finishes what is under way and hands over to the standby that it invites."""
    leader = await stage.ready()
    fault = stage.begin("graceful", f"SIGTERM to {leader.name}", leader)
    stage.fleet.doom(leader)
    leader.terminate()
    await stage.changed(fault)
    code = await stage.restart(leader)
    if code not in (0, *STARVED):
        raise DemoFailed(f"{leader.name} ended with code {code} after SIGTERM; see {leader.log_path}")


async def crash(stage: Stage) -> None:
    """SIGKILL: nobody says goodbye, the lock is free when the lease has ended."""
    leader = await stage.ready()
    fault = stage.begin("crash", f"kill -9 of {leader.name}", leader)
    stage.fleet.doom(leader)
    leader.kill()
    await stage.changed(fault)
    await stage.restart(leader)


async def stall(stage: Stage) -> None:
    """SIGSTOP and nothing more: the leader's own kernel timer ends it at the deadline of its lease."""
    leader = await stage.ready()
    fault = stage.begin("stall", f"SIGSTOP of {leader.name}, past its deadline", leader)
    stage.fleet.doom(leader)
    leader.freeze()
    stage.simulator.oracle.frozen(fault.client)
    try:
        await leader.ended(stage.plan.timing.ttl + CHANGE_WITHIN)
    except TimeoutError:
        raise DemoFailed(f"{leader.name} was stopped and its kernel timer did not end it") from None
    await stage.changed(fault)
    await stage.restart(leader)


async def short_stop(stage: Stage) -> None:
    """SIGSTOP for less than the margin, then SIGCONT: the leader goes on leading."""
    leader = await stage.leader()
    stop = stage.plan.short_stop
    enough = stop + stage.plan.timing.ttl / 4
    await stage.until("a lease that was just renewed", lambda: leader.left >= enough, CHANGE_WITHIN)
    promised = leader.deadline
    fault = stage.begin("stall", f"SIGSTOP of {leader.name} for {stop:.2g} s", leader, must_change=False)
    leader.freeze()
    stage.simulator.oracle.frozen(fault.client)
    await asyncio.sleep(stop)
    # First the word and then the signal: what it sends from its first moment on counts.
    stage.simulator.oracle.thawed(fault.client)
    leader.thaw()
    await _goes_on(stage, fault, promised)


async def backend_restart(stage: Stage) -> None:
    """The backend's server ends and starts again with its data: the leader polls on as long as its lease lasts."""
    assert stage.server is not None
    leader = await stage.ready()
    fault = stage.begin("backend_restart", f"{stage.plan.backend} restarted", leader, must_change=False)
    promised = leader.deadline
    await asyncio.to_thread(stage.server.restart)
    await _goes_on(stage, fault, promised)


async def _goes_on(stage: Stage, fault: DemoFault, promised: float) -> None:
    """Wait until a leader polls again under a lease that goes beyond what was `promised`: the fault is over."""
    since = clock.now()

    def renewed_and_polls() -> bool:
        leader = stage.fleet.leader()
        if leader is None or leader.deadline <= promised:
            return False
        polls = [item.poll for item in stage.simulator.oracle.polls()[-5:]]
        return any(poll.client == leader.client and poll.arrived > since for poll in polls)

    await stage.until(
        f"a leader that goes on after: {fault.words}", renewed_and_polls, stage.plan.freed_after + CHANGE_WITHIN
    )
    fault.ended = clock.now()
    leader = await stage.leader()
    same_term = leader.status is not None and leader.status.term == fault.term
    fault.outcome = "the leader leads on" if same_term else "the leader lost its term, and leads again in a new one"
