"""What the laboratory of faults does to a lock, and sees of it, on the store of each backend."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

import pytest
from chaos.backends import BACKENDS
from chaos.faults import LEADER
from chaos.ground import Ground
from chaos.on_store import (
    FailedOver,
    FailedOverBehind,
    KeyDeleted,
    KeyOverwritten,
    LeaseRevoked,
    PrimaryForgets,
    PrimaryKilled,
)
from support.aio import PATIENCE
from support.hosts import CONSUL, ETCD35, FILE, POSTGRES18, REDIS, Hosts, on

from cluster_lock import clock

pytestmark = pytest.mark.netns


@on(ETCD35, CONSUL, REDIS, POSTGRES18, FILE)
async def test_a_lock_is_broken_by_hand(hosts: Hosts) -> None:
    """A lock whose lease is ended, whose key is deleted, or overwritten and then deleted, is lost by its leader, and
    then stands there under a larger index; and when the leader has stopped no lease of it is left."""
    async with hosts.scene() as scene:
        [leader] = await scene.start(1)
        ground = Ground(hosts, scene)
        async with BACKENDS[hosts.backend].looking(scene) as look:

            async def held() -> int | None:
                """The index, while a lease stands there."""
                stands = await look()
                return int(stands["index"]) if stands is not None and stands["lease"] else None

            async def leads_since(term: int, index: int) -> bool:
                return leader.leads and (leader.term or 0) > term and (await held() or 0) > index

            def has_lost(*, more: int) -> bool:
                return len(leader.lost) > more

            term, index = 0, 0
            for kind in (LeaseRevoked, KeyDeleted, KeyOverwritten):
                await scene.reached(partial(leads_since, term, index))
                term, index, lost = leader.term or 0, await held() or index, len(leader.lost)
                fault = kind(ground, LEADER)
                await fault.begin()
                await fault.end()
                await scene.reached(partial(has_lost, more=lost))
            await scene.reached(partial(leads_since, term, index))
        operator = await ground.operator()
        leader.child.send_signal(signal.SIGTERM)
        await scene.reached(lambda: operator.leases() == 0)


@pytest.mark.parametrize(
    ("hosts", "kind"),
    [
        pytest.param("redis", PrimaryKilled, marks=pytest.mark.redis),
        pytest.param("redis", PrimaryForgets, marks=pytest.mark.redis),
        pytest.param("redis", FailedOver, marks=pytest.mark.redis),
        pytest.param("redis", FailedOverBehind, marks=pytest.mark.redis),
        pytest.param("postgres18", PrimaryKilled, marks=pytest.mark.postgres),
        pytest.param("postgres18", FailedOver, marks=pytest.mark.postgres),
        pytest.param("postgres18", FailedOverBehind, marks=pytest.mark.postgres),
    ],
    indirect=["hosts"],
    scope="session",
)
async def test_a_primary_is_silent_after_its_begin(hosts: Hosts, kind: type[PrimaryKilled | FailedOver]) -> None:
    """Who stands by when the leader is killed together with the store's primary leads no sooner than a primary has been
    there for as long as the laboratory allows it to be silent, and nothing is lost."""
    async with hosts.scene() as scene:
        leader, _ = await scene.start(2)
        await scene.traffic()
        ground = Ground(hosts, scene)
        fault = kind(ground, "store")
        await fault.begin()
        leader.child.kill()
        await asyncio.to_thread(leader.child.wait, PATIENCE)
        down = clock.now()
        await fault.end()
        await scene.taken_over(leader)
        assert clock.now() - down > 0.9 * ground.silent_after_start
        await scene.judge()
