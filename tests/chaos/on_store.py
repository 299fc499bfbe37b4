"""What befalls the nodes of the store, and what people do to the locks in it."""

from __future__ import annotations

import asyncio
import re

from support.hosts import STORES

from cluster_lock.testing.servers import ConsulServer, EtcdServer

from .faults import LEADER, Fault, OnNode


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
        self.ground.network.partition([self.index], [index for index in STORES if index != self.index])

    async def end(self) -> None:
        self.ground.network.hosts[self.index].run("iptables", "-F")


class NoMajority(Fault):
    """Two nodes stand still: nothing is written."""

    name = "store without majority"
    of = ("store",)
    leaderless = True
    lasts = (0.3, 1.3)

    async def begin(self) -> None:
        for node in self.ground.store.nodes[:2]:
            await asyncio.to_thread(node.pause)

    async def end(self) -> None:
        for node in self.ground.store.nodes[:2]:
            node.resume()


class _ByHand(Fault):
    of = (LEADER,)
    lasts = (0.3, 0.6)
    by_hand = True

    async def begin(self) -> None:
        nodes = self.ground.store.nodes
        node = nodes[await asyncio.to_thread(lambda: self.ground.store.leader)]
        self.detail = str(await asyncio.to_thread(self.strike, node, self.ground.scene.lock))

    def strike(self, node: EtcdServer | ConsulServer, key: str) -> str:
        """Do it, with the store's own tools."""
        raise NotImplementedError


class KeyDeleted(_ByHand):
    name = "key deleted by hand"

    def strike(self, node: EtcdServer | ConsulServer, key: str) -> str:
        if isinstance(node, ConsulServer):
            node.request("DELETE", f"/v1/kv/{key}")
        else:
            node.ctl("del", key)
        return key


class KeyOverwritten(_ByHand):
    """Nobody can lead until the person takes it away again."""

    name = "key overwritten by hand"
    leaderless = True

    def strike(self, node: EtcdServer | ConsulServer, key: str) -> str:
        if isinstance(node, ConsulServer):
            node.request("PUT", f"/v1/kv/{key}", "by hand")
        else:
            node.ctl("put", key, "by hand")
        return key

    async def end(self) -> None:
        nodes = self.ground.store.nodes
        node = nodes[await asyncio.to_thread(lambda: self.ground.store.leader)]
        await asyncio.to_thread(KeyDeleted.strike, self, node, self.ground.scene.lock)  # type: ignore[arg-type]


class LeaseRevoked(_ByHand):
    name = "lease revoked by hand"

    def strike(self, node: EtcdServer | ConsulServer, key: str) -> str:
        if isinstance(node, ConsulServer):
            rows = node.request("GET", f"/v1/kv/{key}?consistent") or [{}]
            session = rows[0].get("Session")
            if session:
                node.request("PUT", f"/v1/session/destroy/{session}")
            return str(session)
        leases = [int(lease) for lease in re.findall(r'"Lease" : (\d+)', node.ctl("get", "-w", "fields", key))]
        for lease in filter(None, leases):
            node.ctl("lease", "revoke", f"{lease:x}")
        return str(leases)


ALL = (NodeKilled, NodeRestarted, NodePaused, NodeCut, NoMajority, KeyDeleted, KeyOverwritten, LeaseRevoked)
