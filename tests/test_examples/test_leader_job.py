"""docs/examples/leader_job.py: the jobs of a scheduler run on the leader, and nowhere else."""

from __future__ import annotations

import re
import signal

import pytest
from support import aio
from support.examples import Example, Stages

from cluster_lock.testing.telegram import TelegramSimulator

CHAT = 7
EVERY = 0.5


def runs(simulator: TelegramSimulator) -> list[tuple[float, int, int]]:
    """Each digest that was sent: when, by which process, in which term."""
    found = []
    for call in simulator.calls("sendMessage"):
        match = re.fullmatch(r"Digest of \S+, pid (\d+), term (\d+)", call.arguments["text"])
        assert match, call
        assert call.arguments["chat_id"] == str(CHAT)
        found.append((call.at, int(match[1]), int(match[2])))
    return found


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_jobs_run_on_the_leader_only(end: signal.Signals, stage: Stages) -> None:
    """Two instances send no more digests than one would: the leader's, and after its end the other one's."""
    async with TelegramSimulator(strict=True) as simulator:
        times = {"DIGEST_EVERY": str(EVERY), "DIGEST_COLLECTING": "0.05"}
        with stage("leader_job.py", simulator, DIGEST_CHAT=str(CHAT), **times) as it:
            first, second = await it.start_all("a", "b")
            await sent_more(simulator, 4)
            first.send(end)
            assert await first.ended() == (0 if end is signal.SIGTERM else -end)
            assert {pid for _, pid, _ in runs(simulator)} <= {first.process.pid, second.process.pid}
            await second.says("leading, term")
            await sent_more(simulator, 4)
        seen = runs(simulator)
        pids = [pid for _, pid, _ in seen]
        change = pids.index(second.process.pid)
        assert set(pids[:change]) == {first.process.pid}
        assert set(pids[change:]) == {second.process.pid}
        terms = [term for _, _, term in seen]
        assert terms[0] < terms[-1]
        assert terms == sorted(terms)
        # One more at each end, and one that was late.
        assert len(seen) <= (seen[-1][0] - seen[0][0]) / EVERY + 3


@pytest.mark.process
async def test_a_run_under_way_ends_with_its_term(stage: Stages) -> None:
    """A run that the step-down finds at work is cancelled before the lock is given away and sends nothing, the process
    ends well, and the next leader runs the job at its next time."""
    async with TelegramSimulator(strict=True) as simulator:
        times = {"DIGEST_EVERY": "1", "DIGEST_COLLECTING": "60"}
        with stage("leader_job.py", simulator, DIGEST_CHAT=str(CHAT), **times) as it:
            first, second = await it.start_all("a", "b")
            await running(first)
            first.send(signal.SIGTERM)
            assert await first.ended() == 0
            cut_off = first.output.index("digest was cut off")
            assert cut_off < first.output.index("not leading any more")
            await running(second)
        assert runs(simulator) == []


async def sent_more(simulator: TelegramSimulator, number: int) -> None:
    """Wait for so many digests from now on."""
    wanted = len(runs(simulator)) + number
    await aio.until(lambda: len(runs(simulator)) >= wanted)


async def running(example: Example) -> None:
    """Wait until a run has begun."""
    await example.says("Running job")
