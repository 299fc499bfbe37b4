"""How long nobody polls: each fault a few times, on three nodes of a store, in the times of a production or of a test.

    PYTHONPATH=tests:. python tests/test_network/measure_times.py etcd35 [--quick] [--times 3] [--only crash,graceful]

Needs what the tests here need: root, and the servers of `make servers`. One line for each fault: seconds from the fault
to the next leader's first getUpdates, as Telegram saw it, and since the old leader's last live poll.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
from pathlib import Path

from support.hosts import STORES, TELEGRAM, HostedBot, Hosts, Scene
from support.nursery import Nursery

from cluster_lock import clock
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing


async def main(hosts: Hosts, quick: bool, times: int, only: list[str]) -> None:
    for kind in only or FAULTS:
        for _ in range(times):
            async with hosts.scene() if quick else hosts.scene(Timing(), TelegramTimes()) as scene:
                print(f"{hosts.backend:7} {kind:9} {await measured(scene, kind)}", flush=True)


async def measured(scene: Scene, kind: str) -> str:
    leader, standby = await scene.start(2)
    await scene.traffic(5)
    # Somewhere between two renewals, and between two polls.
    await asyncio.sleep(random.uniform(1.0, 1.0 + scene.timing.renew_every))
    at = await FAULTS[kind](scene, leader)
    if kind == "node":
        return await after_lost_node(scene, leader, at)
    await scene.reached(lambda: standby.leads)
    await scene.reached(lambda: scene.polled_by(standby))
    change = next(one for one in await scene.telegram.changes() if one.new == standby.client)
    after, ended = change.started - at, change.ended - at
    return f"next poll after {after:6.2f} s, the last one ended at {ended:6.2f} s, gap {change.gap_ms / 1000:6.2f} s"


async def after_lost_node(scene: Scene, leader: HostedBot, at: float) -> str:
    """The term may last, or end and begin again on the same instance."""
    await scene.reached(lambda: any(bot.deadline > at + 2 * scene.timing.ttl for bot in scene.bots))
    if not leader.lost:
        return "the term lasts"
    polls = await scene.polls()
    old = [poll for poll in polls if poll["term"] == leader.lost[0]["term"]]
    new = [poll for poll in polls if poll["term"] > leader.lost[0]["term"]]
    ended, began = old[-1]["ended"], new[0]["arrived"]
    return f"the term ends: next poll after {began - at:6.2f} s, the last one ended at {ended - at:6.2f} s"


async def graceful(scene: Scene, leader: HostedBot) -> float:
    at = clock.now()
    leader.child.send_signal(signal.SIGTERM)
    return at


async def crash(scene: Scene, leader: HostedBot) -> float:
    at = clock.now()
    leader.child.send_signal(signal.SIGKILL)
    await asyncio.to_thread(leader.child.wait, 10)
    await scene.telegram.dead(leader.client, at=at)
    return at


async def revoked(scene: Scene, leader: HostedBot) -> float:
    """An operator ends the leader's lease."""
    node = scene.hosts.store.nodes[scene.hosts.store.leader]
    if isinstance(node, ConsulServer):
        [row] = node.request("GET", f"/v1/kv/{scene.lock}")
        await asyncio.to_thread(node.request, "PUT", f"/v1/session/destroy/{row['Session']}")
    else:
        assert isinstance(node, EtcdServer)
        fields = node.ctl("get", scene.lock, "-w", "fields").splitlines()
        lease = next(int(line.split(":")[1]) for line in fields if line.startswith('"Lease"'))
        await asyncio.to_thread(node.ctl, "lease", "revoke", f"{lease:x}")
    return clock.now()


async def store(scene: Scene, leader: HostedBot) -> float:
    scene.network.partition([leader.host], STORES)
    return clock.now()


async def telegram(scene: Scene, leader: HostedBot) -> float:
    scene.network.partition([leader.host], [TELEGRAM])
    at = clock.now()
    await scene.telegram.frozen(leader.client, since=at)
    return at


async def node(scene: Scene, leader: HostedBot) -> float:
    """The leading node of the store is killed. (The bots ask the first one first, whichever leads.)"""
    await asyncio.to_thread(scene.hosts.store.nodes[scene.hosts.store.leader].kill)
    return clock.now()


FAULTS = {fault.__name__: fault for fault in (graceful, crash, revoked, store, telegram, node)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=["etcd34", "etcd35", "consul"])
    parser.add_argument("--quick", action="store_true", help="the times of the tests instead of the defaults")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help=",".join(FAULTS))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Nursery(Path(folder)) as nursery,
        Hosts(options.backend, nursery, fast=options.quick) as hosts,
    ):
        asyncio.run(main(hosts, options.quick, options.times, options.only))
