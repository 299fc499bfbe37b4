"""One run of the demo from the first process to the last, and what came of it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.testing.servers import Server
from cluster_lock.testing.telegram import TelegramSimulator

from . import status
from .changes import changes_of
from .faults import rounds
from .fleet import DemoFailed, Fleet
from .launch import APP, launch
from .picture import picture_of
from .plan import CHATS, DemoPlan
from .servers import own_server
from .stage import Stage
from .table import View
from .timeline import Picture
from .verdict import Verdict, judge

SHOW_EVERY = 0.2
DRAINED_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """`logs`: the folder with the instances' logs. It is kept only if something was wrong."""

    verdict: Verdict
    picture: Picture
    logs: Path


async def run(plan: DemoPlan, view: View) -> DemoOutcome:
    """Carry `plan` out.

    Raises DemoFailed, ServerMissing and ServerFailed when it cannot even begin. Whatever it started has ended when it
    returns or raises.
    """
    folder = Path(tempfile.mkdtemp(prefix="cluster-lock-demo-"))
    keep = False
    try:
        async with AsyncExitStack() as stack:
            server = own_server(plan.backend) if plan.config is None else None
            if server is not None:
                view.say(f"starting {server}")
                stack.callback(server.close)
                await asyncio.to_thread(server.start)
            simulator = await stack.enter_async_context(TelegramSimulator())
            fleet = await stack.enter_async_context(_fleet(plan, folder, server, simulator))
            outcome = await _perform(Stage(plan, simulator, fleet, server), view, folder)
        keep = not outcome.verdict.ok
        return outcome
    except DemoFailed as failure:
        keep = True
        raise DemoFailed(f"{failure}\nthe logs of the instances are in {folder}") from failure
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _fleet(
    plan: DemoPlan, folder: Path, server: Server | None, simulator: TelegramSimulator
) -> AsyncIterator[Fleet]:
    heard: list[Fleet] = []
    transport, port = await status.listen(lambda said: heard[0].heard(said) if heard else None)
    fleet = Fleet(plan.instances, launch(plan, folder, server, simulator.url, port), simulator.oracle)
    heard.append(fleet)
    try:
        yield fleet
    finally:
        await fleet.kill()
        transport.close()


async def _perform(stage: Stage, view: View, folder: Path) -> DemoOutcome:
    plan, simulator, fleet = stage.plan, stage.simulator, stage.fleet
    where = "" if plan.config is None or plan.backend == "file" else f", on the {plan.backend} that is configured"
    view.say(f"starting {plan.instances} times{where}: python -m bot start --app {APP} ...")
    await fleet.start()
    showing = asyncio.ensure_future(_keep_showing(stage, view))
    problems: list[str] = []
    try:
        await stage.ready(plan.instances - 1)
        view.say(f"{plan.instances} instances on {plan.backend}, {plan.rate:g} updates a second to {len(CHATS)} chats")
        stage.began = began = clock.now()
        await simulator.traffic_on(plan.bot_id, rate=plan.rate, chats=CHATS)
        problems += await _failure_of(_rounds(stage, began))
        problems += await _failure_of(_drained(stage, view))
        ended = clock.now()
        problems += await fleet.stop()
        view.show(stage)
    finally:
        await end([showing])
    oracle = simulator.oracle
    changes = changes_of(stage.faults, [change for change in oracle.changes() if change.started <= ended])
    verdict = judge(
        plan.backend, plan.instances, oracle.report(at_most=5), oracle.updates(), changes, fleet.lost, problems
    )
    picture = picture_of(verdict, fleet.instances, oracle.polls(), oracle.updates(), (began, ended))
    return DemoOutcome(verdict, picture, folder)


async def _failure_of(work: Awaitable[None]) -> list[str]:
    """What a part of the demo failed of; the rest goes on, so that there is a verdict on all of it."""
    try:
        await work
    except DemoFailed as failure:
        return [str(failure)]
    return []


async def _rounds(stage: Stage, began: float) -> None:
    """Every fault once, spread over the time of the traffic; on a slow machine the traffic lasts until the last one."""
    planned = rounds(stage.plan)
    usable = max(0.0, stage.plan.seconds - stage.plan.freed_after - 1.0)
    for number, fault in enumerate(planned):
        await _sleep_until(began + 0.5 + usable * number / len(planned))
        await fault(stage)
    await _sleep_until(began + stage.plan.seconds)


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - clock.now()))


async def _drained(stage: Stage, view: View) -> None:
    """Send no more, and wait until every update was handled and confirmed."""
    view.show(stage)
    view.say("no more updates are sent; the rest is handled")
    await stage.simulator.traffic_off(stage.plan.bot_id)
    await stage.until("every update to be handled and confirmed", lambda: not stage.waiting, DRAINED_WITHIN)


async def _keep_showing(stage: Stage, view: View) -> None:
    while True:
        began = clock.now()
        view.show(stage)
        # The longer the history, the longer it takes to judge, and Telegram's answers wait for it.
        await asyncio.sleep(max(SHOW_EVERY, 10 * (clock.now() - began)))
