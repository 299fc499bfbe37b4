"""One round: bots have traffic, suffer, recover and handle what is left; what they leave is a history."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Sequence

import aiohttp
from support.hosts import TIMES, Scene

from cluster_lock import clock
from cluster_lock.testing.servers import ServerFailed
from cluster_lock.testing.telegram import SimulatorError

from . import history
from .availability import START
from .faults import UNSAFE_BY_HAND, Fault
from .ground import Ground
from .history import History, Process, poll_of, update_of
from .kept import keepers, lives_of
from .nemesis import KINDS, Choice
from .stands import followed
from .traffic import Traffic
from .waiting import came_true

DRAIN_WITHIN = 20.0
STOP_WITHIN = 20.0
TROUBLE = (
    ServerFailed,
    SimulatorError,
    aiohttp.ClientError,
    subprocess.SubprocessError,
    RuntimeError,
    OSError,
)
"""What the laboratory itself may suffer."""


class Round:
    """On bots that run already, and that go on for the next one unless this is the `last` one on its ground.
    `stubborn`: some handlers swallow their cancellation, so that the guard may have to end a process."""

    def __init__(self, ground: Ground, seed: int, plan: Sequence[Choice], *, last: bool, stubborn: bool = True) -> None:
        self.ground, self.seed, self.plan, self.last = ground, seed, plan, last
        # If a person breaks the lock, a handler that swallows its cancellation has until the deadline all the same.
        kinds = [KINDS[choice.name] for choice in plan]
        self._stubborn = stubborn and not any(kind.by_hand or kind.obedient for kind in kinds)
        self._stray: list[str] = []
        self._unwell = ""
        self._stands: list[history.Json] = []
        self._leaked: list[str] = []

    async def run(self) -> History:
        """What became of it."""
        ground, scene = self.ground, self.ground.scene
        await scene.report()  # the word of a handler of an earlier round must not come after that round is forgotten
        await scene.telegram.clear()
        began = clock.now()
        async with followed(scene) as self._stands:
            ground.traffic = Traffic(scene, self.seed, stubborn=self._stubborn)
            await ground.traffic.begin()
            faults = await self._suffer(ground)
            await self._heal(ground)
            healed = clock.now()
            recovered = await self._recovered(ground, healed)
            await ground.traffic.end()
            await self._drained(scene)
        if self.last:
            await self._stopped(ground)
        await scene.report()
        # One that was on its way when the round began belongs to the round before, as its sender's word of it does.
        polls = [poll_of(poll) for poll in await scene.telegram.polls()]
        return History(
            ground.hosts.backend,
            self.seed,
            {**{name: getattr(scene.timing, name) for name in (*TIMES, "request")}, "freed": ground.freed},
            began,
            healed,
            recovered,
            clock.now(),
            told(faults),
            _processes(scene, began),
            [poll for poll in polls if (poll.sent or poll.arrived) > began],
            [update_of(update) for update in await scene.telegram.updates()],
            self._stands,
            self._leaked,
            self._unwell,
            self._stray,
            keepers(scene, began),
        )

    # -- trouble

    async def _suffer(self, ground: Ground) -> list[Fault]:
        faults = [KINDS[choice.name](ground, choice.on) for choice in self.plan]
        await asyncio.gather(*(self._strike(*one) for one in zip(faults, self.plan, strict=True)))
        return [fault for fault in faults if fault.began]

    async def _strike(self, fault: Fault, choice: Choice) -> None:
        try:
            await asyncio.sleep(choice.at)
            fault.began = clock.now()
            await fault.begin()
            await asyncio.sleep(choice.lasts)
            await fault.end()
            fault.ended = clock.now()
        except TROUBLE as error:
            self._stray.append(f"{fault.name}: {error!r}")

    async def _heal(self, ground: Ground) -> None:
        for node in ground.store.nodes:
            if node.running:
                node.resume()
        await asyncio.to_thread(ground.hosts.repair)
        await ground.scene.telegram.clear_faults()
        ground.relaunch_all()

    # -- and then

    async def _recovered(self, ground: Ground, healed: float) -> float | None:
        """When each bot stood by, known to the store, and one led and polled; None if that did not come in time."""
        scene = ground.scene

        async def well() -> bool:
            # Who was cut off may find only now that its time is over.
            ground.relaunch_all()
            bots = ground.bots
            leaders = [bot for bot in bots if bot.leads]
            others = [bot for bot in bots if bot.stands_by]
            if len(leaders) != 1 or len(others) != len(bots) - 1:
                self._unwell = f"{[str(bot.now) for bot in bots]}"
                return False
            if not await scene.polled_by(leaders[0], healed):
                self._unwell = f"{leaders[0].client} leads and does not poll"
                return False
            stands = self._stands[-1]["index"] if self._stands else None
            if stands != leaders[0].term:
                self._unwell = f"{leaders[0].client} leads under {leaders[0].term}, and {stands} stands in the store"
                return False
            missing = {bot.name for bot in others} - {*await scene.contenders()}
            self._unwell = f"no record of {missing}" if missing else ""
            return not missing

        limit = 3 * ground.freed + ground.silent_after_start + ground.starting + 2 * START
        return clock.now() if await came_true(well, limit) else None

    async def _drained(self, scene: Scene) -> None:
        """Until each update is handled and confirmed, or will never be."""

        async def all_done() -> bool:
            report = await scene.report()
            return not report.pending and not report.lost

        if not await came_true(all_done, DRAIN_WITHIN):
            self._unwell = self._unwell or "not everything was handled"

    async def _stopped(self, ground: Ground) -> None:
        """Stop all at once, and see what is left."""
        for bot in ground.bots:
            bot.child.send_signal(signal.SIGTERM)
        until = clock.now() + STOP_WITHIN
        for bot in ground.bots:
            try:
                code = await asyncio.to_thread(bot.child.wait, max(0.1, until - clock.now()))
                if code != 0:
                    self._leaked.append(f"{bot.client} was asked to stop and ended with code {code}")
            except subprocess.TimeoutExpired:
                self._leaked.append(f"{bot.client} did not stop within {STOP_WITHIN:g} s")
                bot.child.kill()
        await self._nothing_left(ground)

    async def _nothing_left(self, ground: Ground) -> None:
        """The leases of those that were killed end by themselves."""
        operator = await ground.operator()
        limit = 3 * ground.scene.timing.ttl + START
        left = 0

        async def none() -> bool:
            nonlocal left
            left = await asyncio.to_thread(operator.leases)
            return left == 0

        if not await came_true(none, limit):
            self._leaked.append(f"{left} leases are left {limit:g} s after the last process stopped")


def _processes(scene: Scene, since: float) -> list[Process]:
    """All that lived since then, with what they wrote down since."""
    found = []
    for bot in scene.bots:
        for life, ended, code in lives_of(bot):
            if ended is None or ended > since:
                events = life.events()
                started = events[0]["at"] if events else since
                of_now = [event for event in events if event["at"] > since]
                found.append(Process(life.client, bot.host, started, ended, code, of_now))
    return found


def told(faults: Sequence[Fault]) -> list[history.Fault]:
    """The faults for the history. A lock that a person broke while something else went on is no test of its safety,
    and a bot that was asked to stop twice is none of its drain."""
    records = [fault.told() for fault in faults]
    if len(faults) > 1:
        for fault, record in zip(faults, records, strict=True):
            if fault.by_hand:
                record.excuses.extend(UNSAFE_BY_HAND)
    if sum(fault.asks_to_stop for fault in faults) > 1:
        records[0].excuses.append("cut_off_too_soon")
    return records
