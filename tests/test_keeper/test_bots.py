"""Bots with keepers under traffic: what a crash, a stop and a hand-over cost, and that no update is lost or comes twice
that need not.

A fault's seconds run from it to the next leader's first getUpdates; a bound is what the rules say and room for a busy
machine. `benchmarks/takeover.py` measures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from support.backends import Backend
from support.keepers import FAST
from support.kept import CHATS, KeptBots, kept_bots
from support.watched import Process

pytestmark = pytest.mark.process

TIMING = replace(FAST, ttl=5.0, margin=1.5, stall_limit=2.5)
"""Fast, with room for a busy machine: no term may end by itself."""
TIMES = 3
BUSY = 1.0
EXPIRY = {"etcd": 1, "consul": 2}
"""After how many ttl a backend has freed the lock of a holder who is silent."""

ETCD = pytest.param("etcd35", marks=pytest.mark.etcd)
CONSUL = pytest.param("consul", marks=pytest.mark.consul)
CONSUL_TOO = pytest.param("consul", marks=[pytest.mark.consul, pytest.mark.slow])


@pytest.mark.parametrize("backend", [ETCD, CONSUL_TOO], indirect=True, scope="session")
async def test_hand_overs_under_traffic(backend: Backend, tmp_path: Path) -> None:
    """SIGTERM to the keeper, `step-down --to` and `bot restart` at 200 updates a second lose and repeat nothing, and at
    no moment do two poll."""
    async with kept_bots(tmp_path, backend, TIMING) as bots:
        leader = await bots.settled()
        await bots.traffic(200, CHATS)
        for hand_over in (bots.keeper_is_asked, bots.leader_steps_down, bots.leader_is_restarted):
            await hand_over(leader)
            leader = await bots.settled()
        report = await bots.judge()
        assert report.duplicated == 0
        gaps = [change.gap_ms for change in await bots.telegram.changes()]
        assert len(gaps) == 3
        assert median(gaps) < 60 + 1000 * BUSY


@pytest.mark.parametrize("backend", [ETCD, CONSUL_TOO], indirect=True, scope="session")
async def test_crashes_under_traffic(backend: Backend, tmp_path: Path) -> None:
    """A worker that is killed costs milliseconds, one that is stopped less than a ttl, a keeper that is killed what the
    backend needs to find out; nothing is lost, and at no moment do two poll."""
    async with kept_bots(tmp_path, backend, TIMING) as bots:
        leader = await workers_are_killed(bots)
        assert await bots.worker_is_stopped(leader) < TIMING.ttl
        leader = await bots.settled()
        all_killed = await bots.all_is_killed(leader)
        await bots.judge()
        assert all_killed < EXPIRY[backend.name] * TIMING.ttl + 1 + TIMING.settle + BUSY


@pytest.mark.parametrize("backend", [CONSUL], indirect=True, scope="session")
async def test_workers_are_killed_under_traffic(backend: Backend, tmp_path: Path) -> None:
    """On Consul too a worker that is killed costs milliseconds."""
    async with kept_bots(tmp_path, backend, TIMING) as bots:
        await workers_are_killed(bots)
        await bots.judge()


async def workers_are_killed(bots: KeptBots) -> Process:
    """One after the other, and each time the other one leads at once; the last leader."""
    leader, took = await bots.settled(), []
    await bots.traffic(50, CHATS)
    for _ in range(TIMES):
        took.append(await bots.worker_is_killed(leader))
        leader = await bots.settled()
    assert median(took) < 0.15 + BUSY
    return leader
