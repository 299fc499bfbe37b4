"""A worker under its keeper: the lock is held exactly as long as the worker is there and works on it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.aio import quickest, run, until
from support.backends import Backend
from support.keepers import FAST, WORKER, KeeperProcess, gone, keepers
from support.stores import SERVERS, TELL_ALL, Operator

from cluster_lock import clock

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


COPIES = 1.0
"""Seconds within which signals are one."""


def worker_pid(keeper: KeeperProcess) -> int:
    [pid] = [each.pid for each in keeper.below() if each not in keeper.inits()]
    return pid


async def test_a_graceful_stop_hands_over(tmp_path: Path) -> None:
    """SIGTERM to a keeper steps down in its worker, hands over to the worker that stands by what was left for it, and
    ends both with 0."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a")
        await first.says("a: leading")
        second = await them.worker("b")
        await second.says("waiting, held by a")
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        await second.says("handed over {'by': 'a'}")
        assert first.output.index("a: ends") < first.output.index("not leading any more, handed over to b")
        assert "a: done" in first.output


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
async def test_a_crash_costs_no_ttl(backend: Backend, tmp_path: Path) -> None:
    """When a worker is killed its lock is released at once, and the next leads at once: it was released, not found
    free. The keeper starts its worker again, which stands by."""
    async with keepers(tmp_path, backend) as them:
        first = await them.worker("a", restart="on-failure")
        await first.says("a: leading")
        second = await them.worker("b")
        await second.says("waiting, held by a")
        killed = clock.now()
        os.kill(worker_pid(first), signal.SIGKILL)
        await second.says("b: leading")
        assert clock.now() - killed < FAST.ttl / 2
        assert "released {}" in second.output
        await first.says("the worker ended with signal SIGKILL")
        await first.says("a: ready", times=2)
        await first.says("waiting, held by b")


FULL = """
import os, resource, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, most))  # inherited; what is opened here is not
opened = []
try:
    while True:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        os.set_inheritable(opened[-1], True)
except OSError:
    for number in opened[-int(sys.argv[1]):]:
        os.close(number)
os.execvp(sys.argv[2], sys.argv[2:])
"""


async def test_no_descriptors_for_a_process(tmp_path: Path) -> None:
    """A keeper that has no descriptors left to start its worker, or its command, says so in one sentence: it ends with
    71, or tries again, each time later. Nothing of what it started half is left."""
    async with keepers(tmp_path) as them:
        full = (sys.executable, "-c", FULL, "9")  # enough for the files of the backend, and for no process
        once = await them.start("a", "sleep", "100", prefix=full)
        job = await them.start("b", "sleep", "100", lock="x", restart="always", prefix=full)
        again = await them.start("c", "sleep", "100", restart="on-failure", prefix=full)
        assert await once.ended() == 71
        assert once.output.endswith(": Too many open files\n")
        for keeper in (job, again):
            await keeper.says("Too many open files, ", times=2)
            await until(lambda keeper=keeper: keeper.below() == [])
            keeper.signal(signal.SIGTERM)
        assert (await job.ended(), await again.ended()) == (143, 0)
        assert "Traceback" not in once.output + job.output + again.output


@pytest.mark.parametrize("how", ["stopped", "blocks", "deaf", "swallows"])
async def test_a_worker_that_does_not_work_is_ended(tmp_path: Path, how: str) -> None:
    """A worker that is stopped, whose loop is blocked, or whose poller is deaf, is killed, and its lock released."""
    async with keepers(tmp_path) as them:
        deed = ["works", "deaf"] if how == "deaf" else [how if how != "stopped" else "works"]
        first = await them.worker("a", *deed)
        await first.says("a: leading")
        second = await them.worker("b")
        if how == "stopped":
            os.kill(worker_pid(first), signal.SIGSTOP)
        elif how == "swallows":
            first.signal(signal.SIGTERM)
        await second.says("b: leading")
        assert "found free" not in second.output
        await first.ended()


@pytest.mark.parametrize("backend", TELL_ALL, indirect=True, scope="session")
def test_a_stopped_worker_is_told_of_no_loss(backend: Backend, tmp_path: Path) -> None:
    """When an operator ends the lease under a worker that is stopped, the worker is gone within 250 ms: before the next
    leader has settled."""

    async def end_lease() -> float:
        async with keepers(tmp_path, backend) as them:
            keeper = await them.worker("a")
            await keeper.says("a: leading")
            worker = psutil.Process(worker_pid(keeper))
            os.kill(worker.pid, signal.SIGSTOP)
            operator = Operator(backend, them.prefix)
            await asyncio.to_thread(operator.end_lease, await them.lease("x"))
            return await gone([worker], 5)

    assert run(quickest(end_lease, 0.25)) < 0.25


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_without_its_keeper_a_worker_ends(tmp_path: Path, how: str) -> None:
    """A worker whose keeper is killed, or stopped beyond the deadline, ends before the lock can be somebody else's."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", "swallows")
        await first.says("a: leading")
        below = first.below()
        first.signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        assert await gone(below, 10) < FAST.ttl
        second = await them.worker("b")
        await second.says("b: leading")


@pytest.mark.parametrize(("deed", "restart", "code"), [("exits", "never", 3), ("returns", "on-failure", 0)])
async def test_its_end_is_the_keepers(tmp_path: Path, deed: str, restart: str, code: int) -> None:
    """A worker that ends by itself ends its keeper with its own exit code, unless it is to be started again."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", deed, restart=restart)
        assert await keeper.ended() == code


async def test_a_worker_takes_its_time_to_start(tmp_path: Path) -> None:
    """A worker that blocks its loop for longer than the stall limit before it asks for its lock, as a startup hook may,
    is not ended, and leads. One that does so later is: see above."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", "works", "migrates", restart="on-failure")
        await keeper.says("a: leading")
        assert keeper.output.count("a: ready") == 1, keeper.output
        assert "killing the worker" not in keeper.output


@pytest.mark.parametrize("how", ["restarts", "forks and restarts"])
async def test_a_worker_that_restarts_itself(tmp_path: Path, how: str) -> None:
    """A worker that puts itself in its own place by exec is a worker that starts: its lock is released with what it
    left, at once, also where children of the program before live on; the same process leads again, under the same
    keeper, which does not start another one, and it stops in good order."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", how, restart="on-failure")
        await keeper.says("another program in its place")
        await keeper.says("a: leading", times=2)
        assert "released {'by': 'a'}" in keeper.output
        assert "the worker ended" not in keeper.output
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        assert "a: done" in keeper.output


async def test_a_restart_while_it_stops(tmp_path: Path) -> None:
    """A worker that was asked to stop and puts itself in its own place is asked again: it leads no more, and ends in
    good order."""
    async with keepers(tmp_path) as them:
        patient = replace(FAST, drain=40)  # a program may take its time to start
        keeper = await them.start("a", sys.executable, *WORKER, "restarts at the stop", timing=patient)
        await keeper.says("a: leading")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        assert "another program in its place" in keeper.output
        assert "a: done" in keeper.output
        assert keeper.output.count("a: leading") == 1
        assert "has not ended" not in keeper.output


async def test_a_child_that_would_lead_too(tmp_path: Path) -> None:
    """A child that was forked before the worker knocked is not under the keeper: it gets no lock from it, and the
    worker keeps its own."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", "works", "forks first")
        await keeper.says("a: leading")
        await keeper.says("a: child: False")
        await keeper.says("it is that of the process which has started this one")
        assert "another program" not in keeper.output
        assert "child: leading" not in keeper.output
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0


async def test_two_that_would_be_one_worker(tmp_path: Path) -> None:
    """When another process knocks at the keeper's door while the worker is there, all of the worker is ended, with a
    reason, before anybody gets its lock."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", "starts another worker")
        await keeper.says("a: leading")
        await keeper.says("killing the worker: process")
        assert await keeper.ended() == 137
        assert "which is not process" in keeper.output
        assert keeper.output.count("a: leading") == 1


async def test_an_exec_that_fails(tmp_path: Path) -> None:
    """A worker whose exec fails leads on; when it is killed later its lock is released when nothing of it is left."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", "fails to restart")
        await first.says("a: goes on")
        second = await them.worker("b")
        await second.says("waiting, held by a")
        first.signal(signal.SIGTERM)
        await second.says("handed over {'by': 'a'}")
        assert await first.ended() == 0
        assert "another program" not in first.output


async def test_a_crash_right_after_an_exec_that_failed(tmp_path: Path) -> None:
    """A worker that is killed right after its exec failed has crashed: what it would have left to the program in its
    place is left to nobody."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", "fails to restart and crashes")
        assert await first.ended() == 137
        second = await them.worker("b")
        await second.says("b: leading")
        assert "released earlier {}" in second.output
        assert "another program" not in first.output


async def test_a_worker_that_becomes_something_else(tmp_path: Path) -> None:
    """Where a worker puts a program in its place that knows nothing of us, its lock goes to the next one at once."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", "becomes another")
        await first.says("a: leading")
        second = await them.worker("b")
        await second.says("b: leading")
        assert "found free" not in second.output
        assert "killing the worker" not in first.output
        first.signal(signal.SIGTERM)
        await first.ended()


async def test_what_a_worker_does_after_its_last_term(tmp_path: Path) -> None:
    """A worker that has left goes on with what is its own, such as shutdown hooks, without signs of life."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", "returns", "lingers")
        assert await keeper.ended() == 0
        assert "a: done" in keeper.output


async def test_a_session_that_failed_is_no_reason_to_try_again(tmp_path: Path) -> None:
    """With fail_fast an unreachable backend ends worker and keeper with 69, whatever is said about restarts."""
    async with keepers(tmp_path, Backend("consul", {"url": "http://127.0.0.1:1"}, None)) as them:
        keeper = await them.start("a", sys.executable, *WORKER, restart="always", fail_fast=True)
        assert await keeper.ended() == 69


async def test_a_crash_loop_slows_down(tmp_path: Path) -> None:
    """A worker that ends again and again is started again each time, each time later."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", "exits", restart="always")
        await keeper.says("starting it again", times=3)
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        assert "found free" in keeper.output
        assert keeper.output.count("a: leading") >= 3


async def test_a_worker_asks_to_step_down(tmp_path: Path) -> None:
    """A step-down that the work itself asks for goes to the contender that stands by, as in one process."""
    async with keepers(tmp_path) as them:
        second = await them.worker("b")
        await second.says("b: leading")
        first = await them.worker("a", "asks")
        await first.says("waiting, held by b")
        second.signal(signal.SIGTERM)
        third = await them.worker("c")
        await first.says("a: leading")
        await third.says("c: leading")
        await first.says("not contending for 60 s")


async def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    """A second SIGTERM kills a worker that does not end, releases its lock, and ends with 143. What comes within a
    second of the first is a copy of it."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", "swallows")
        await first.says("a: leading")
        second = await them.worker("b")
        await second.says("waiting, held by a")
        first.signal(signal.SIGTERM)
        asked = clock.now()
        await first.says("stepping down")
        while (now := clock.now()) < asked + COPIES:
            first.signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        assert first.code is None, f"ended {now - asked:.2f} s after the first"
        await until(lambda: clock.now() > now + COPIES)
        first.signal(signal.SIGTERM)
        assert await first.ended(2) == 143
        await second.says("b: leading")
