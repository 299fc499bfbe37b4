"""One node of the store is lost, the one that leads there and that the bots ask first."""

from __future__ import annotations

import pytest
from support.hosts import CONSUL, ETCD34, ETCD35, STORES, Hosts, Scene, on

from cluster_lock import clock

pytestmark = pytest.mark.netns


@on(ETCD35, CONSUL)
async def test_the_stores_leader_is_killed(hosts: Hosts) -> None:
    """When the leading node of the store is killed the bots go on with the others: the term lasts or is lost in good
    order, and never do two lead."""
    node = hosts.store.leader
    async with hosts.scene() as scene:
        await scene.start(2, addresses=hosts.addresses(first=node))
        await scene.traffic()
        hosts.store.nodes[node].kill()
        await _is_led_without_it(scene, clock.now())
        await scene.judge()


@on(ETCD34, ETCD35, CONSUL)
async def test_the_stores_leader_is_alone(hosts: Hosts) -> None:
    """When the leading node of the store is cut off from the other two, and the bots are not, they leave it: the term
    lasts or is lost in good order, and never do two lead."""
    node = hosts.store.leader
    async with hosts.scene() as scene:
        await scene.start(2, addresses=hosts.addresses(first=node))
        await scene.traffic()
        hosts.network.partition([node], [other for other in STORES if other != node])
        await _is_led_without_it(scene, clock.now())
        hosts.network.heal()
        await scene.judge()


async def _is_led_without_it(scene: Scene, lost: float) -> None:
    """Until somebody leads on a lease that was renewed more than once since the node was `lost`."""
    enough = lost + 1.5 * scene.timing.ttl
    await scene.reached(lambda: any(bot.leads and bot.deadline > enough for bot in scene.bots))
