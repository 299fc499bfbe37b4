"""Keeper and worker are frozen together, as a container that is paused, or a host that is suspended: what was not heard
meanwhile is nobody's silence."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.aio import until
from support.keepers import FAST, WORKER, KeeperProcess, keepers

from cluster_lock import clock

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

TIMING = replace(FAST, ttl=60.0)
"""A lease that outlasts the sleep."""
ASLEEP = 2 * FAST.stall_limit

SAVES = """
import signal, sys, time
def save(number, frame):
    print("saving", flush=True)
    began = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    while time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) < began + 0.1:
        pass
    print("saved", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
while True:
    time.sleep(0.1)
"""
"""A command that needs a processor to end, and so no time while it is frozen."""


async def freeze(keeper: KeeperProcess, *, first: int) -> None:
    """Stop all of it for as long as `ASLEEP`. `first`: 0 or -1, which end of the chain is woken first."""
    pids = [keeper.pid, *(each.pid for each in keeper.below())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    woken = clock.now() + ASLEEP
    await until(lambda: clock.now() >= woken)
    for pid in pids if first == 0 else reversed(pids):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("first", [0, -1], ids=["keeper first", "worker first"])
async def test_a_worker_is_not_killed_for_its_keepers_sleep(tmp_path: Path, first: int) -> None:
    """A worker that was frozen with its keeper, for longer than a worker may be silent, leads on."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", sys.executable, *WORKER, "works", timing=TIMING)
        await keeper.says("a: leading")
        worker = keeper.below()[-1]
        for _ in range(3):
            await freeze(keeper, first=first)
            heard = clock.now() + FAST.stall_limit
            await until(lambda heard=heard: clock.now() >= heard)
            assert worker.is_running(), keeper.output
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        assert "killing" not in keeper.output


async def test_a_drain_goes_on_after_a_sleep(tmp_path: Path) -> None:
    """A command that is about to end when all of it is frozen, for longer than the drain, still ends by itself."""
    async with keepers(tmp_path) as them:
        keeper = await them.start(
            "a", sys.executable, "-c", SAVES, lock="x", timing=replace(TIMING, drain=0.8 * ASLEEP)
        )
        await keeper.says("up")
        keeper.signal(signal.SIGTERM)
        await keeper.says("saving")
        await freeze(keeper, first=0)
        assert await keeper.ended() == 7
        assert "saved" in keeper.output


async def test_a_worker_that_sleeps_alone_is_killed(tmp_path: Path) -> None:
    """After a common sleep a worker that goes on sleeping is killed after its usual time."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", sys.executable, *WORKER, "works", timing=TIMING)
        await keeper.says("a: leading")
        worker = keeper.below()[-1]
        await freeze(keeper, first=0)
        worker.suspend()
        await keeper.says("no sign of life")
        await keeper.ended()
