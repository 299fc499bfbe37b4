"""What befalls a hand-over: its heir, and its requests."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, ClassVar

from support.backends import Backend
from support.hosts import HostedBot
from support.stores import open_session

from cluster_lock.session import Session
from cluster_lock.testing.servers import Server

from .faults import LEADER, PASSING_ON, SEVERAL_NODES, STANDBY, Fault
from .on_bots import SteppedDown, asked
from .on_nodes import asked_by
from .waiting import came_true

TRIES = 2
"""To hand it back: who gave it away may be deaf for a moment, since it listened to the node that stands still. People
who ask more often are refused."""
BACK_WITHIN = 3.0
DEAD_FOR = 1.0
"""Seconds."""
LONG_WORK, CONFIRMED_AFTER = 14.0, 9.5
"""Seconds. By then so much has come that Telegram would soon show nothing new."""
AT_WORK = 0.5
"""Seconds that the later term has gone on for when the request comes."""


class ContenderDead(SteppedDown):
    """The one that has stood by for longest dies. Its record still stands in the store when the leader is asked to hand
    over."""

    name = "contender dead before a hand-over"
    of = (STANDBY,)
    lasts = (0.1, 0.3)

    async def begin(self) -> None:
        self.dead = await self._oldest()
        self.dead.child.send_signal(signal.SIGKILL)
        await asyncio.sleep(DEAD_FOR)
        await super().begin()

    async def _oldest(self) -> HostedBot:
        ground = self.ground
        bots = {bot.name: bot for bot in ground.bots if not bot.leads}
        waiting = [bots[name] for name in await ground.scene.contenders() if name in bots]
        return waiting[0] if waiting else ground.bot(STANDBY)

    async def end(self) -> None:
        await asyncio.to_thread(self.dead.child.wait, 30)
        self.ground.relaunch(self.dead)


class SteppedDownAmidWork(SteppedDown):
    """A handler has run for so long that its update is confirmed, and still runs when the leader is asked to hand
    over."""

    name = "asked to step down amid confirmed work"
    lasts = (0.3, 0.6)

    async def begin(self) -> None:
        scene = self.ground.scene
        await scene.telegram.push(scene.bot_id, chat_id=99, text=f"work {LONG_WORK:g}")
        await asyncio.sleep(CONFIRMED_AFTER)
        await super().begin()


class RequestHeld(Fault):
    """The node that the leader asks stands still while the lock is handed over, and handed back to the same lease. Then
    it does what it was asked in the earlier term. Another node had done that in time."""

    name = "request held until a later term"
    needs = SEVERAL_NODES
    of = ("soon", "later")
    after: ClassVar[Mapping[str, float]] = {"soon": 0.05, "later": 0.2}
    lasts = (0.2, 0.4)

    async def begin(self) -> None:
        ground, self.leader = self.ground, self.ground.bot(LEADER)
        index = await self._asked_node()
        if index is None or self.leader.term is None:
            self.detail = "not done: nobody led, or the node that the leader asks leads the store"
            return
        other = ground.store.nodes[index - 1]
        async with AsyncExitStack() as stack:
            # Opened before, at another node: who stands still would be waited for.
            people = [await stack.enter_async_context(self._person_at(other)) for _ in range(1 + TRIES)]
            away = asyncio.create_task(asked(ground, nullcontext(people.pop())))
            await asyncio.sleep(self.after[self.on])
            await asyncio.to_thread(self.hold, index)
            try:
                said = await away
                is_back = await self._hand_back(people)
                await asyncio.sleep(AT_WORK)
            finally:
                self.let_go(index)
        led = "led again" if is_back else "did not lead again"
        self.detail = f"{self.leader.client} asked node {index}, {led}; {said}"

    async def _asked_node(self) -> int | None:
        """The one that the leader asks. It must not lead the store: what that was asked it does not do when it was
        deposed meanwhile. So that one stands still first, until others are asked."""
        ground = self.ground
        for _ in range(len(ground.store.nodes)):
            index = await asyncio.to_thread(asked_by, ground, self.leader)
            leads = await asyncio.to_thread(lambda: ground.store.leader)
            if index is None or index != leads:
                return index
            node = ground.store.nodes[index]
            await asyncio.to_thread(node.pause)
            await asyncio.to_thread(ground.store.wait_leader, other_than=index)
            await asyncio.sleep(ground.scene.timing.renew_every)
            node.resume()
            await asyncio.sleep(AT_WORK)
        return None

    def hold(self, index: int) -> None:
        """What this node is asked it does later."""
        self.ground.store.nodes[index].pause()

    def let_go(self, index: int) -> None:
        self.ground.store.nodes[index].resume()

    def _person_at(self, node: Server) -> AbstractAsyncContextManager[Session]:
        backend = self.ground.store.backend(node)
        alone = Backend(
            backend.name,
            {name: _like(told, self.ground.store.address(node)) for name, told in backend.section.items()},
            node,
        )
        return open_session(alone, self.ground.scene.prefix, "operator")

    async def _hand_back(self, people: list[Session]) -> bool:
        for person in people:
            if await came_true(self._stands_by, BACK_WITHIN):
                await asked(self.ground, nullcontext(person), self.leader.name)
            if await came_true(self._leads, 1.0):
                return True
        return False

    async def _stands_by(self) -> bool:
        return self.leader.stands_by

    async def _leads(self) -> bool:
        return self.leader.leads


class RequestHeldOnItsWay(RequestHeld):
    """The node does not stand still, but what it passes on to the leader of the store waits in its kernel. It hears the
    leader, tells its watches everything, and what it passed on can be taken back by nobody."""

    name = "request held between two store nodes"
    needs = PASSING_ON

    def hold(self, index: int) -> None:
        store = self.ground.store
        # Members of etcd write to each other in the answers to long requests.
        self.rules = self.ground.network.hold(index, store.nodes[index].peer_port, store.leader)

    def let_go(self, index: int) -> None:
        self.rules.take_back()


def _like(told: Any, address: str) -> Any:
    """One address, in the place of one or of several."""
    return address if isinstance(told, str) else [address]


ALL = (ContenderDead, SteppedDownAmidWork, RequestHeld, RequestHeldOnItsWay)
