"""The store answers, but late."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from support.hosts import CONSUL, ETCD35, STORES, Hosts, on
from support.proxy import Proxy

from cluster_lock import clock
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing

pytestmark = pytest.mark.netns

TIMING = Timing(ttl=6, margin=1.5, stop_time=0.8)
TIMES = TelegramTimes(poll_timeout=2)
ROUND_TRIP = 0.7 * TIMING.request / len(STORES)
"""Of the time that one request gets at each node: what is left is for the noise of the machine."""


@on(ETCD35, CONSUL)
async def test_a_slow_store_ends_no_term(hosts: Hosts) -> None:
    """A store whose answers take nearly as long as they may is renewed in time, every time: the term goes on."""
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy(node.host, _port(node), host=hosts.network.own_address))
            for node in hosts.store.nodes
        ]
        scene = await stack.enter_async_context(hosts.scene(TIMING, TIMES))
        addresses = [f"http://{proxy.host}:{proxy.port}" for proxy in proxies]
        leader, standby = await scene.start(2, addresses=addresses)
        term = leader.term
        for proxy in proxies:
            proxy.delay = ROUND_TRIP / 2
        await scene.reached(lambda: leader.deadline > clock.now())
        enough = leader.deadline + 3 * TIMING.renew_every
        await scene.reached(lambda: leader.deadline > enough or not leader.leads)
        assert leader.leads, leader
        assert leader.term == term
        assert not leader.lost
        assert not standby.events("ended")


def _port(node: ConsulServer | EtcdServer) -> int:
    return node.http_port if isinstance(node, ConsulServer) else node.client_port
