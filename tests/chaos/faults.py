"""What a fault is: something that begins and ends, on somebody, and says what it makes unsafe."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from support.hosts import HostedBot

from cluster_lock import clock

from . import history

if TYPE_CHECKING:
    from .ground import Ground

LEADER, STANDBY = "leader", "standby"
WIRES, FOLDER = "wires", "folder"
SEVERAL_NODES, ONE_PRIMARY, FORGETFUL = "several nodes", "one primary", "forgetful"
CLOSABLE, RESTORABLE, RELEASED, PASSING_ON = "closable", "restorable", "released", "passing on"
"""What a fault may need of the store: that wires lead to it, or that it is a folder; that the other nodes go on without
one; that it is a primary with a replica; that it is safe also when the primary begins anew without its data; that it
can be told to take no writes; that its tokens go on after a backup was put back; that the released version knows it;
that its nodes pass on what is written over wires on which that can be held."""
UNSAFE_BY_HAND = ("overlapping_polls", "overlapping_work", "arrived_in_later_term", "doubled_updates", "out_of_order")
"""Checks that find what nobody can make safe: a person took the lock from who cannot hear of it."""


class Fault(ABC):
    """`on`: whom, as `of` names it. `lasts` in ttl is what the nemesis chooses from."""

    name: ClassVar[str]
    of: ClassVar[Sequence[str]] = (LEADER, STANDBY)
    lasts: ClassVar[tuple[float, float]] = (0.2, 1.6)
    weight: ClassVar[float] = 1.0
    stops: ClassVar[bool] = False
    leaderless: ClassVar[bool] = False
    restarts: ClassVar[bool] = False
    """The whole store: it may be silent for a while after that."""
    needs: ClassVar[str | None] = None
    kept: ClassVar[bool] = False
    """There must be a keeper, and it is spared."""
    bare: ClassVar[bool] = False
    """There must be none."""
    alone: ClassVar[bool] = False
    """Nothing else happens in that round."""
    obedient: ClassVar[bool] = False
    """No handler swallows its cancellation in that round."""
    asks_to_stop: ClassVar[bool] = False
    """A bot, or its worker. Who is asked twice hurries."""
    by_hand: ClassVar[bool] = False
    """A person breaks the lock: unsafe while its holder cannot be reached."""
    harmless: bool = False
    """It takes the lease from nobody, and gives nobody's guard a reason."""
    excuses: ClassVar[Sequence[str]] = ()
    """Checks whose findings it explains."""

    @classmethod
    def can_be_done(cls) -> bool:
        """On this machine."""
        return True

    def __init__(self, ground: Ground, on: str) -> None:
        self.ground = ground
        self.on = on
        self.began = 0.0
        self.ended: float | None = None
        self.detail = ""

    @abstractmethod
    async def begin(self) -> None:
        """Do it."""

    async def end(self) -> None:  # noqa: B027 - much that is done needs no undoing
        """Undo it. Everybody can be well again then."""

    @property
    def client(self) -> str | None:
        return None

    def told(self) -> history.Fault:
        """For the history. Of what was never ended, until now."""
        ended = clock.now() if self.ended is None else self.ended
        # A keeper that is stopped stops no worker.
        stops = self.stops and self.kept == self.ground.kept
        silent = self.ground.silent_after_start if self.restarts else 0.0
        return history.Fault(
            self.name,
            self.on,
            self.began,
            ended,
            self.client,
            list(self.excuses),
            self.detail,
            stops,
            self.leaderless,
            silent,
            self.harmless,
            self.kept,
        )


class OnBot(Fault):
    """Something that is done to one bot, chosen when it begins."""

    bot: HostedBot
    struck: str
    """Its client then."""

    async def begin(self) -> None:
        self.bot = self.ground.bot(self.on)
        self.struck = self.detail = self.bot.client
        await self.strike()

    @abstractmethod
    async def strike(self) -> None:
        """Do it to `bot`."""

    @property
    def client(self) -> str | None:
        return self.struck


class OnNode(Fault):
    """Something that is done to one node of the store, chosen when it begins."""

    of = ("store leader", "store follower")
    needs = SEVERAL_NODES
    index: int

    async def begin(self) -> None:
        leader = await asyncio.to_thread(lambda: self.ground.store.leader)
        others = [index for index in range(len(self.ground.store.nodes)) if index != leader]
        self.index = leader if self.on == "store leader" else others[0]
        self.detail = f"node {self.index}"
        await self.strike()

    @abstractmethod
    async def strike(self) -> None:
        """Do it to node `index`."""
