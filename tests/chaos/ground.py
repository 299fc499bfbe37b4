"""The hosts, the store and the bots of one round, as the faults reach them."""

from __future__ import annotations

import asyncio
from typing import Any

from support.hosts import HostedBot, Hosts, Scene

from cluster_lock.testing.servers import Cluster, ConsulServer, EtcdServer

from .faults import STANDBY
from .kept import KeptScene
from .traffic import Traffic


class Ground:
    """`hosts` outlive many scenes."""

    def __init__(self, hosts: Hosts, scene: Scene) -> None:
        self.hosts, self.scene = hosts, scene
        self.network = hosts.network
        self.store: Cluster[Any] = hosts.store
        self.kept = isinstance(scene, KeptScene)
        self.traffic = Traffic(scene, 0, stubborn=False)
        """That of the present round."""
        self._replaced: set[str] = set()

    @property
    def bots(self) -> list[HostedBot]:
        """The latest life on each host."""
        return [bot for bot in self.scene.bots if bot.name not in self._replaced]

    def bot(self, on: str) -> HostedBot:
        """The oldest that is not the leader for STANDBY, else the leader: by their own words, at this moment."""
        leader = max(self.bots, key=lambda bot: (bot.leads, bot.deadline))
        return leader if on != STANDBY else next(bot for bot in self.bots if bot is not leader)

    def relaunch(self, bot: HostedBot) -> None:
        """A new life on the host of one that has ended."""
        if bot.child.returncode is not None and bot.name not in self._replaced:
            self._replaced.add(bot.name)
            self.scene.launch(bot.host)

    def relaunch_all(self) -> None:
        for bot in list(self.bots):
            self.relaunch(bot)

    async def start_node(self, index: int) -> None:
        """Until it is one of the cluster again."""
        node: EtcdServer | ConsulServer = self.store.nodes[index]
        node.launch()
        await asyncio.to_thread(node.wait_ready)
