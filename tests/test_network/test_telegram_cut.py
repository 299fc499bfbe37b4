"""The leader's host is cut off from Telegram, and from nothing else."""

from __future__ import annotations

import pytest
from support.hosts import CONSUL, ETCD35, TELEGRAM, Hosts, on

from cluster_lock import clock

pytestmark = pytest.mark.netns


@on(ETCD35, CONSUL)
async def test_a_standby_that_reaches_it_takes_over(hosts: Hosts) -> None:
    """A leader that does not reach Telegram hands over to a standby that does, past one that does not either, and then
    does not contend for as long as it waited; no update is handled twice."""
    async with hosts.scene() as scene:
        leader, deaf, hearing = await scene.start(3)
        await scene.traffic()
        await scene.reached(lambda: len(leader.events("run")) > 5)
        hosts.network.partition([leader.host, deaf.host], [TELEGRAM])
        cut = clock.now()
        await scene.telegram.frozen(leader.client, since=cut)
        assert await scene.taken_over(leader) is hearing
        assert not leader.lost
        assert leader.name not in await scene.contenders()

        hosts.network.heal()
        await scene.telegram.thawed(leader.client)
        await scene.contend(leader)
        stepped_down = leader.events("ended")[-1]["at"]
        assert clock.now() >= stepped_down + scene.times.telegram_grace
        assert hearing.leads
        report = await scene.judge()
        assert report.duplicated == 0


@on(ETCD35)
async def test_it_leads_on_when_nobody_reaches_it(hosts: Hosts) -> None:
    """While no standby reaches Telegram either, the leader keeps its term, and polls on in it when Telegram is back."""
    async with hosts.scene() as scene:
        leader, standby = await scene.start(2)
        await scene.traffic()
        term = leader.term
        hosts.network.partition([leader.host, standby.host], [TELEGRAM])
        await scene.telegram.frozen(leader.client)
        await scene.reached(lambda: "nobody is able to take over" in leader.child.output)
        await scene.telegram.thawed(leader.client)
        hosts.network.heal()
        healed = clock.now()
        await scene.reached(lambda: scene.polled_by(leader, healed))
        assert leader.term == term
        assert not standby.events("ended")
        await scene.judge()
