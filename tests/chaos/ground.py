"""The hosts, the store and the bots of one round, as the faults reach them."""

from __future__ import annotations

import asyncio
from typing import Any

from support.hosted import HostedStore
from support.hosts import HostedBot, Hosts, Scene
from support.stores import Operator

from cluster_lock.testing.servers import Server
from cluster_lock.values import LEADER

from .backends import BACKENDS
from .faults import STANDBY
from .kept import KeptScene
from .released import launch_released
from .traffic import Traffic


class Ground:
    """`hosts` outlive many scenes. `starting`: seconds that the bots took to come up; one that is started anew may take
    as long on this machine."""

    def __init__(self, hosts: Hosts, scene: Scene, *, starting: float = 0.0) -> None:
        self.hosts, self.scene, self.starting = hosts, scene, starting
        self.network = hosts.network
        self.store: HostedStore[Any] = hosts.store
        self.kept = isinstance(scene, KeptScene)
        self.traffic = Traffic(scene, 0, stubborn=False)
        """That of the present round."""
        self._replaced: set[str] = set()

    @property
    def freed(self) -> float:
        """Seconds until the lock of one who is silent is free."""
        return BACKENDS[self.hosts.backend].frees_after * self.scene.timing.ttl

    @property
    def silent_after_start(self) -> float:
        """Seconds in which a store that was started gives nothing away."""
        return BACKENDS[self.hosts.backend].silent_after_start * self.scene.timing.ttl

    async def operator(self) -> Operator:
        """A person at the node that leads the store, as soon as one does."""
        nodes = self.store.nodes
        node = nodes[await asyncio.to_thread(lambda: self.store.leader)] if nodes else None
        return Operator(self.store.backend(node), self.scene.prefix)

    @property
    def lock(self) -> str:
        """The name of the lock, as people know it."""
        return self.scene.lock.removeprefix(self.scene.prefix).removeprefix(LEADER)

    @property
    def bots(self) -> list[HostedBot]:
        """The latest life on each host."""
        return [bot for bot in self.scene.bots if bot.name not in self._replaced]

    def bot(self, on: str) -> HostedBot:
        """The oldest that is not the leader for STANDBY, else the leader: by their own words, at this moment."""
        leader = max(self.bots, key=lambda bot: (bot.leads, bot.deadline))
        return leader if on != STANDBY else next(bot for bot in self.bots if bot is not leader)

    def relaunch(self, bot: HostedBot, *, released: bool = False) -> None:
        """A new life on the host of one that has ended; `released`: of the version that was released before."""
        if bot.child.returncode is not None and bot.name not in self._replaced:
            self._replaced.add(bot.name)
            if released:
                launch_released(self.scene, bot.host)
            else:
                self.scene.launch(bot.host)

    def relaunch_all(self) -> None:
        for bot in list(self.bots):
            self.relaunch(bot)

    async def start_node(self, index: int) -> None:
        """Until it is one of the cluster again."""
        node: Server = self.store.nodes[index]
        node.launch()
        await asyncio.to_thread(node.wait_ready)
