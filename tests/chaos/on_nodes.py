"""What befalls one node of a store that has several."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from support.bot_process import environment
from support.hosts import STORES, HostedBot

from cluster_lock.testing.servers import ServerFailed

from .faults import LEADER, SEVERAL_NODES, Fault, OnNode
from .ground import Ground

ASIDE = 6_000
"""Beside the ports of a node: one that nobody else has."""


class NodeKilled(OnNode):
    name = "store node killed"

    async def strike(self) -> None:
        await asyncio.to_thread(self.ground.store.nodes[self.index].kill)

    async def end(self) -> None:
        await self.ground.start_node(self.index)


class NodeRestarted(OnNode):
    name = "store node restarted"

    async def strike(self) -> None:
        await asyncio.to_thread(self.ground.store.nodes[self.index].stop)

    async def end(self) -> None:
        await self.ground.start_node(self.index)


class NodePaused(OnNode):
    name = "store node paused"

    async def strike(self) -> None:
        await asyncio.to_thread(self.ground.store.nodes[self.index].pause)

    async def end(self) -> None:
        self.ground.store.nodes[self.index].resume()


class NodeCut(OnNode):
    """From the other nodes; the bots reach it."""

    name = "store node cut from the others"

    async def strike(self) -> None:
        self.rules = self.ground.network.partition([self.index], [index for index in STORES if index != self.index])

    async def end(self) -> None:
        self.rules.take_back()


class NodeRefuses(Fault):
    """In the place of the node that the leader asks something else listens, and refuses everything. The others serve,
    and nobody needs to lose a lease."""

    name = "store node refuses everything"
    needs = SEVERAL_NODES
    of = (LEADER,)
    lasts = (1.2, 1.6)

    async def begin(self) -> None:
        ground = self.ground
        index = await asyncio.to_thread(asked_by, ground, ground.bot(LEADER))
        leads = await asyncio.to_thread(lambda: ground.store.leader)
        self.index = leads if index is None else index
        self.harmless = self.index != leads  # without its leader the store serves nobody for a moment
        self.detail = f"node {self.index}"
        await asyncio.to_thread(self._take_the_place)

    def _take_the_place(self) -> None:
        """Before the node is gone: who loses it finds the other one at once, and does not ask elsewhere."""
        node, host = self.ground.store.nodes[self.index], self.ground.network.hosts[self.index]
        self._port = urlsplit(self.ground.store.address(node)).port or 0
        own = self._port + ASIDE
        command = [sys.executable, "-m", "support.refusing_all", self.ground.store.name, host.address, str(own)]
        self._other = subprocess.Popen(
            [*host.wrapper, *command], stdout=subprocess.PIPE, env=environment(Path(self.ground.scene.folder))
        )
        assert self._other.stdout is not None
        if self._other.stdout.readline() != b"ready\n":
            raise ServerFailed("what is to refuse everything does not start")
        self._redirect("-A", own)
        node.kill()

    def _redirect(self, how: str, own: int) -> None:
        match = ("-p", "tcp", "--dport", str(self._port), "-j", "REDIRECT", "--to-ports", str(own))
        self.ground.network.hosts[self.index].run("iptables", "-t", "nat", how, "PREROUTING", *match)

    async def end(self) -> None:
        await asyncio.to_thread(self._redirect, "-D", self._port + ASIDE)
        self._other.kill()
        await asyncio.to_thread(self._other.wait)
        await self.ground.start_node(self.index)


def asked_by(ground: Ground, bot: HostedBot) -> int | None:
    """The node of the store that this bot sent something to last."""
    said = ground.network.hosts[bot.host].run("ss", "-tniOH", "state", "established")
    latest: dict[int, int] = {}
    for line in said.splitlines():
        if (sent := re.search(r"lastsnd:(\d+)", line)) is None:
            continue
        for index in STORES:
            if re.search(rf"\b{re.escape(ground.network.hosts[index].address)}\]?:", line):
                latest[index] = min(int(sent[1]), latest.get(index, int(sent[1])))
    return min(latest, key=latest.__getitem__, default=None)


ALL = (NodeKilled, NodeRestarted, NodePaused, NodeCut, NodeRefuses)
