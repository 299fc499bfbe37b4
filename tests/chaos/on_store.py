"""What befalls the store as a whole, and what people do to the locks in it."""

from __future__ import annotations

import asyncio
import shutil
from abc import abstractmethod
from typing import Any

from support.hosted import Folder, Pair
from support.small_disk import fill
from support.stores import Operator

from cluster_lock.testing.servers.base import wait_for

from .backends import BACKENDS
from .faults import (
    CLOSABLE,
    FOLDER,
    FORGETFUL,
    LEADER,
    ONE_PRIMARY,
    RESTORABLE,
    SEVERAL_NODES,
    UNSAFE_BY_HAND,
    Fault,
)

AGAIN_WITHIN = 30.0


class NoMajority(Fault):
    """Two nodes stand still: nothing is written."""

    name = "store without majority"
    of = ("store",)
    needs = SEVERAL_NODES
    leaderless = True
    lasts = (0.3, 1.3)

    async def begin(self) -> None:
        for node in self.ground.store.nodes[:2]:
            await asyncio.to_thread(node.pause)

    async def end(self) -> None:
        for node in self.ground.store.nodes[:2]:
            node.resume()


class NoWrites(Fault):
    """It answers, and takes none."""

    name = "store takes no writes"
    of = ("store",)
    needs = CLOSABLE
    leaderless = True
    lasts = (0.3, 1.3)

    async def begin(self) -> None:
        self.operator = await self.ground.operator()
        await asyncio.to_thread(self.operator.stop_writes)

    async def end(self) -> None:
        server = self.operator.backend.server
        assert server is not None
        # Another fault may have ended it, and starts it again.
        await asyncio.to_thread(
            wait_for, lambda: server.running or None, AGAIN_WITHIN, f"{server} is not started again"
        )
        await asyncio.to_thread(server.wait_ready)
        await asyncio.to_thread(self.operator.let_write)


class Restored(Fault):
    """A backup is put back. All are cut off meanwhile, and who leads then is not who led."""

    name = "store restored from a backup"
    of = ("store",)
    needs = RESTORABLE
    leaderless = True
    excuses = (*UNSAFE_BY_HAND, "index_goes_on")
    lasts = (0.3, 1.6)

    async def begin(self) -> None:
        self.saved = await asyncio.to_thread(self.ground.store.save)

    async def end(self) -> None:
        await asyncio.to_thread(self.ground.store.restore, self.saved)


class _OnPrimary(Fault):
    of = ("store",)
    needs = ONE_PRIMARY
    leaderless = True
    index: int

    @property
    def pair(self) -> Pair[Any]:
        assert isinstance(self.ground.store, Pair)
        return self.ground.store

    @property
    def server(self) -> Any:
        return self.pair.nodes[self.index]

    async def begin(self) -> None:
        self.index = self.pair.primary
        self.detail = f"node {self.index}"
        await asyncio.to_thread(self.strike)

    @abstractmethod
    def strike(self) -> None:
        """Do it to `server`."""


class PrimaryPaused(_OnPrimary):
    name = "store paused"
    lasts = (0.3, 1.3)

    def strike(self) -> None:
        if self.server.running:
            self.server.pause()
        else:
            self.detail = "not done: it did not run"

    async def end(self) -> None:
        if self.server.running:
            self.server.resume()


class PrimaryRestarted(_OnPrimary):
    """Often before the leader's lease ends: who leads may go on, and nobody else begins for a while."""

    name = "store restarted"
    restarts = True
    lasts = (0.05, 1.3)

    def strike(self) -> None:
        self.server.stop()

    async def end(self) -> None:
        await self.ground.start_node(self.index)


class PrimaryKilled(PrimaryRestarted):
    name = "store killed"

    def strike(self) -> None:
        self.server.kill()


class PrimaryForgets(PrimaryKilled):
    """It begins anew without a word of what it had promised."""

    name = "store begins without its data"
    needs = FORGETFUL
    lasts = (0.05, 0.6)

    def strike(self) -> None:
        super().strike()
        self.server.lose_data()


class FailedOver(_OnPrimary):
    """The primary dies, its replica is promoted, and the dead one comes back as the replica."""

    name = "store fails over to its replica"
    restarts = True
    lasts = (0.05, 1.3)
    excuses = ("index_goes_on",)

    def strike(self) -> None:
        self.pair.lose_primary()

    async def end(self) -> None:
        await asyncio.to_thread(self.pair.launch)


class FailedOverBehind(FailedOver):
    """The replica hears nothing of the primary for a while, and is promoted as it is: leases, grants and releases of
    that time are lost."""

    name = "store fails over to a replica that is behind"
    lasts = (0.1, 1.6)

    def strike(self) -> None:
        self.rules = self.ground.network.partition([self.index], [1 - self.index])

    async def end(self) -> None:
        await asyncio.to_thread(self.pair.lose_primary)
        self.rules.take_back()
        await super().end()


class _ByHand(Fault):
    of = (LEADER,)
    lasts = (0.3, 0.6)
    by_hand = True

    async def begin(self) -> None:
        self.detail = await self.strike(await self.ground.operator())

    @abstractmethod
    async def strike(self, operator: Operator) -> str:
        """Do it, with the store's own tools; to what it was done."""


class KeyDeleted(_ByHand):
    name = "key deleted by hand"

    async def strike(self, operator: Operator) -> str:
        await asyncio.to_thread(operator.delete_key, self.ground.lock)
        return self.ground.lock


class KeyOverwritten(_ByHand):
    """Nobody can lead until the person takes it away again."""

    name = "key overwritten by hand"
    leaderless = True

    async def strike(self, operator: Operator) -> str:
        await asyncio.to_thread(operator.overwrite, self.ground.lock, "by hand")
        return self.ground.lock

    async def end(self) -> None:
        operator = await self.ground.operator()
        await asyncio.to_thread(operator.delete_key, self.ground.lock)


class LeaseRevoked(_ByHand):
    name = "lease revoked by hand"

    async def strike(self, operator: Operator) -> str:
        async with BACKENDS[self.ground.hosts.backend].looking(self.ground.scene) as look:
            stands = await look()
        lease = str(stands["lease"]) if stands else ""
        if lease:
            await asyncio.to_thread(operator.end_lease, lease)
        return lease or "not done: nobody held the lock"


class FolderDeleted(_ByHand):
    """With every lease, every last word and the counter of tokens."""

    name = "folder deleted by hand"
    needs = FOLDER

    async def strike(self, operator: Operator) -> str:
        await asyncio.to_thread(shutil.rmtree, operator.folder, ignore_errors=True)
        return str(operator.folder)


class DiskFull(Fault):
    """Of the shared folder."""

    name = "disk full"
    of = ("store",)
    needs = FOLDER
    leaderless = True
    lasts = (0.3, 1.3)

    async def begin(self) -> None:
        assert isinstance(self.ground.store, Folder)
        self.filling = await asyncio.to_thread(fill, self.ground.store.disk)

    async def end(self) -> None:
        self.filling.unlink()


ALL = (
    NoMajority,
    NoWrites,
    Restored,
    KeyDeleted,
    KeyOverwritten,
    LeaseRevoked,
    PrimaryPaused,
    PrimaryRestarted,
    PrimaryKilled,
    PrimaryForgets,
    FailedOver,
    FailedOverBehind,
    FolderDeleted,
    DiskFull,
)
