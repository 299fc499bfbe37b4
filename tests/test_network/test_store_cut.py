"""The leader's host is cut off from the store, and from nothing else."""

from __future__ import annotations

import re

import pytest
from support.hosts import CONSUL, ETCD35, STORES, Hosts, on

from cluster_lock import clock

pytestmark = pytest.mark.netns


@on(ETCD35, CONSUL)
async def test_it_polls_until_its_deadline_and_no_longer(hosts: Hosts) -> None:
    """A leader that is cut off from the store polls on until its deadline and not beyond it, a standby takes over when
    the store has freed the lock, and after the cut the old leader is a standby again."""
    async with hosts.scene() as scene:
        leader, standby = await scene.start(2)
        await scene.traffic()
        await scene.reached(lambda: len(leader.events("run")) > 5)
        hosts.network.partition([leader.host], STORES)
        cut = clock.now()
        assert await scene.taken_over(leader) is standby

        timing = scene.timing
        mine, others = await scene.polls(leader, cut), await scene.polls(standby)
        # The last renewal was sent before the cut, and not long before: a third of a ttl, and what one may take.
        latest = cut + timing.ttl - timing.margin
        earliest = latest - timing.stop_time - timing.renew_every - timing.request
        assert earliest < mine[-1]["arrived"] < latest
        assert mine[-1]["arrived"] < others[0]["arrived"]
        assert [event["at"] < latest for event in leader.lost] == [True]

        hosts.network.heal()
        await scene.contend(leader)
        assert standby.leads
        await scene.judge()


@on(ETCD35)
async def test_a_lock_that_a_person_breaks_meanwhile(hosts: Hosts) -> None:
    """When a person ends the lease of a leader that is cut off from the store, nobody can tell the leader: another one
    polls beside it, for no longer than until its deadline, and no update is lost by that."""
    async with hosts.scene() as scene:
        leader, standby = await scene.start(2)
        await scene.traffic()
        hosts.network.partition([leader.host], STORES)
        cut = clock.now()
        node = hosts.store.nodes[0]
        [lease] = re.findall(r'"Lease" : (\d+)', node.ctl("get", "-w", "fields", scene.lock))
        node.ctl("lease", "revoke", f"{int(lease):x}")
        assert await scene.taken_over(leader) is standby
        latest = cut + scene.timing.ttl - scene.timing.margin
        await scene.reached(lambda: leader.lost)
        assert leader.lost[0]["at"] < latest
        assert (await scene.polls(leader))[-1]["arrived"] < latest
        hosts.network.heal()
        await scene.contend(leader)
        report = await scene.drained()
        assert (report.lost, report.late_arrivals, report.sent_after_term) == (0, 0, 0)
