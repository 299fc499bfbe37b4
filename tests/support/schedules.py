"""Random schedules: instances that elect on one memory store while everything goes wrong that can, and a checker of
what they did.

One number makes one schedule. Each instance has a client of its own that is slow, forgetful, cut off, or says things
twice; a person deletes keys and ends leases; the machine sleeps and the loop is blocked; terms are stopped, cancelled
and handed over. Then it is calm, and the checker looks at who worked when.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn
from unittest import mock

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term, election
from cluster_lock.errors import LockLost
from cluster_lock.session import Hold, Session
from cluster_lock.testing.faulty import (
    LOST_REPLY,
    LOST_REQUEST,
    VERBS,
    DriverFault,
    FaultyDriver,
    slow_reply,
    slow_request,
)
from cluster_lock.testing.virtual_time import block, run, suspend
from cluster_lock.values import Entry, Grant, Lease, Traits

from .sessions import PREFIX, TIMING, key_of, session, standby

RECOVERY = 2 * TIMING.ttl + 5.0
"""Seconds of calm after which somebody must lead again, whatever was before."""
TRUST = TIMING.ttl - TIMING.margin - TIMING.stop_time
"""How long a leader that is cut off from the store may work on after a person broke its lock: the documented limit."""
STEPS = 0.01, 0.03, 0.1, 0.3, 0.9
"""How long one step of work may take, in seconds."""
ELECTED, HELD = "x", "y"
"""The lock that is elected for, and one that is held by blocks."""


@dataclass
class Work:
    """What one term did: from its first to its last moment of work under a valid lock. `granted`: when the store gave
    the lock, which the term may hear of later."""

    name: str
    instance: str
    token: int
    granted: float
    first: float
    last: float


@dataclass
class History:
    """What happened in one schedule."""

    works: list[Work] = field(default_factory=list)
    breaks: list[tuple[float, str]] = field(default_factory=list)
    """When a person broke which lock."""
    must_lead_at: list[tuple[float, str]] = field(default_factory=list)
    """When somebody had to be at work under which lock."""
    complaints: list[str] = field(default_factory=list)
    """What must not be said or left behind."""


def problems(history: History) -> Iterator[str]:
    """What is wrong with it, one sentence each."""
    for name in sorted({work.name for work in history.works}):
        works = sorted((work for work in history.works if work.name == name), key=lambda work: work.granted)
        breaks = [moment for moment, broken in history.breaks if broken == name]
        for number, work in enumerate(works):
            for later in works[number + 1 :]:
                if later.token <= work.token:
                    yield f"{name}: token {later.token} of {later.instance} came after {work.token} of {work.instance}"
                broken = [at for at in breaks if work.granted <= at <= later.granted]
                # Not `work.last`: a restore may give the lock back to who had lost it, and who then works on by right.
                both_until = min(work.last, later.last)
                if later.first < work.last and not any(both_until <= at + TRUST for at in broken):
                    yield (
                        f"{name}: {work.instance} ({work.token}) worked until {work.last:.3f}, and {later.instance}"
                        f" ({later.token}) from {later.first:.3f} on"
                    )
    for moment, name in history.must_lead_at:
        if not any(work.name == name and work.first <= moment <= work.last + 2 * max(STEPS) for work in history.works):
            yield f"{name}: nobody was at work at {moment:.3f}"
    yield from history.complaints


def play(seed: int, *, instances: int = 3, rounds: int = 5) -> History:
    """The history of one schedule: so many times trouble, each followed by calm."""
    history = History()
    chance = random.Random(seed)
    random.seed(seed)  # the jitter of the library
    with _heard(history), mock.patch.object(election, "end_process", _end_process):
        run(_Schedule(history, chance).play(instances, rounds))
        gc.collect()  # what nobody looked at complains when it is collected
    return history


def _end_process(why: str) -> NoReturn:
    raise AssertionError(f"the process would have been ended: {why}")


@contextmanager
def _heard(history: History) -> Iterator[None]:
    """Errors that are only logged, by the library or by asyncio, are complaints."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.exc_info is not None:
                text += f": {record.exc_info[1]!r}"
            history.complaints.append(f"logged by {record.name}: {text}")

    listener = Listener(logging.ERROR)
    areas = [logging.getLogger("cluster_lock"), logging.getLogger("asyncio")]
    for area in areas:
        area.addHandler(listener)
    try:
        yield
    finally:
        for area in areas:
            area.removeHandler(listener)


class _Store(MemoryBackend):
    """Remembers when it granted which token."""

    def __init__(self, traits: Traits) -> None:
        super().__init__(traits=traits)
        self.granted: dict[int, float] = {}

    def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
        grant = super().acquire(lease, key, name, record)
        if grant is not None:
            self.granted.setdefault(grant.token, clock.now())
        return grant

    def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
        done = super().transfer(grant, key, heir, heir_key, record)
        if done:
            self.granted[self.index] = clock.now()
        return done


class _Schedule:
    def __init__(self, history: History, chance: random.Random) -> None:
        self.history, self.chance = history, chance
        self.store = _Store(Traits(linearizable_waits=chance.random() < 0.5))
        self.instances: list[_Instance] = []
        self.saved: object = None

    async def play(self, instances: int, rounds: int) -> None:
        self.instances = [_Instance(self, f"i{number}") for number in range(instances)]
        running = [asyncio.create_task(instance.run()) for instance in self.instances]
        for _ in range(rounds):
            await self._trouble(clock.now() + self.chance.uniform(1, 30))
            stays = self.chance.choice(self.instances)
            stays.resting_until = 0.0
            for instance in self.instances:
                instance.calm()
                if instance is not stays:  # what it holds without knowing would show now: nobody else gets it
                    instance.rest(RECOVERY + 1)
            await asyncio.sleep(RECOVERY)
            self.history.must_lead_at += [(clock.now(), ELECTED), (clock.now(), HELD)]
            await asyncio.sleep(2 * max(STEPS))
        for instance in self.instances:
            instance.leave()
        async with asyncio.timeout(60):
            await asyncio.gather(*running)
        self._look_for_what_was_left()

    async def _trouble(self, end: float) -> None:
        chance = self.chance
        actions: list[tuple[Callable[[_Instance], object], int]] = [
            (_Instance.stumble, 30),
            (_Instance.cut, 8),
            (_Instance.repeat, 12),
            (_Instance.step_down, 8),
            (_Instance.stop, 4),
            (_Instance.cancel, 6),
            (_Instance.restart, 2),
            (_Instance.crash, 2),
            (_Instance.rest, 4),
            (lambda instance: self.break_lock(chance.choice((ELECTED, HELD))), 5),
            (lambda instance: self.end_lease(instance), 4),
            (lambda instance: self.store.stranger_deletes(PREFIX + standby(self.store, instance.name).name), 2),
            (lambda instance: self.store.stranger_deletes(f"{PREFIX}invite/{ELECTED}"), 2),
            (lambda instance: self.back_up(), 2),
            (lambda instance: self.restore(), 1),
            (lambda instance: suspend(chance.choice((0.3, 3, 9, 14, 40))), 2),
            (lambda instance: block(chance.choice((0.3, 3, 9, 14))), 2),
        ]
        verbs, weights = zip(*actions, strict=True)
        while clock.now() < end:
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01, 0.1, 0.3, 1)))
            chance.choices(verbs, weights)[0](chance.choice(self.instances))

    def break_lock(self, name: str) -> None:
        self.history.breaks.append((clock.now(), name))
        self.store.stranger_deletes(key_of(name))

    def back_up(self) -> None:
        self.saved = self.store.save()

    def restore(self) -> None:
        """The store is what it was at some time, with its revision above all that it ever had. Whoever is cut off
        cannot hear of it: a person has broken every lock."""
        if self.saved is not None:
            self.history.breaks += [(clock.now(), name) for name in (ELECTED, HELD)]
            self.store.restore(self.saved, bump=self.store.index + 1_000_000)

    def end_lease(self, instance: _Instance) -> None:
        for lease, held_by in self.store.leases().items():
            if held_by.startswith(f"{instance.name}@"):
                for name in (ELECTED, HELD):
                    if self.store.entry(key_of(name), name).lease == lease:
                        self.history.breaks.append((clock.now(), name))
                self.store.end_lease(lease)

    def _look_for_what_was_left(self) -> None:
        complaints = self.history.complaints
        complaints += [f"a lease of {held_by} is left" for held_by in self.store.leases().values()]
        complaints += [f"{key} is left" for key in self.store.keys_under(PREFIX)]
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        complaints += [f"a task is left: {task!r}" for task in tasks if not task.cancelling()]


class _Instance:
    """A process, so to say: a session, an election for one lock, and blocks under another."""

    def __init__(self, schedule: _Schedule, name: str) -> None:
        self.name = name
        self.history, self.chance, self.store = schedule.history, schedule.chance, schedule.store
        self.driver = FaultyDriver(MemoryDriver(self.store))
        self.election: Election | None = None
        self.leading: asyncio.Future[Any] | None = None
        self.holding: asyncio.Future[Any] | None = None
        self.leaving = False
        self.resting_until = 0.0
        self.restarting = asyncio.Event()
        self._repeating: set[asyncio.Task[object]] = set()

    async def run(self) -> None:
        while not self.leaving:
            self.restarting.clear()
            self.driver = FaultyDriver(MemoryDriver(self.store))
            async with session(self.store, self.name, driver=self.driver) as mine:
                await asyncio.gather(self._again_and_again(mine, self._lead), self._again_and_again(mine, self._hold))
                if mine.context.claims.holds:
                    self.history.complaints.append(f"{self.name} still has {mine.context.claims.holds}")

    async def _again_and_again(self, mine: Session, do: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
        while not (self.leaving or self.restarting.is_set()):
            if self._must_not_begin():
                await asyncio.sleep(1.0)
                continue
            task = asyncio.ensure_future(do(mine))
            if do == self._lead:
                self.leading = task
            else:
                self.holding = task
            await asyncio.wait([task])
            self._look(task)

    async def _lead(self, mine: Session) -> None:
        self.election = Election(mine)
        if not self._must_not_begin():  # it was told so before this had begun
            await self.election.lead(ELECTED, self._body)

    def _must_not_begin(self) -> bool:
        return self.leaving or self.restarting.is_set() or clock.now() < self.resting_until

    def _look(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.history.complaints.append(f"{self.name} ended with {error!r}")

    # What is done to it.

    def stumble(self) -> None:
        """From now on a verb goes wrong, for a while, in one of many ways."""
        chance = self.chance
        verb = chance.choice(sorted(VERBS))
        faults: list[DriverFault] = [LOST_REQUEST, LOST_REPLY]
        faults += [made(chance.uniform(0, most)) for made in (slow_request, slow_reply) for most in (0.3, 3, 7)]
        self.driver.always(verb, chance.choice(faults))
        asyncio.get_running_loop().call_later(chance.choice((0.1, 2, 9)), self.driver.always, verb, None)

    def cut(self) -> None:
        self.driver.down(silent=self.chance.random() < 0.5)
        asyncio.get_running_loop().call_later(self.chance.choice((0.2, 2, 6, 12, 25)), self.driver.up)

    def repeat(self) -> None:
        """A copy of an old request arrives."""
        verb = self.chance.choice(sorted(VERBS - {"wait_changed", "grant_lease"}))

        async def again(driver: FaultyDriver) -> None:
            with suppress(LookupError):
                await driver.deliver_again(verb)

        task = asyncio.get_running_loop().create_task(again(self.driver))
        self._repeating.add(task)
        task.add_done_callback(self._repeating.discard)

    def step_down(self) -> None:
        term = self.election.term(ELECTED) if self.election is not None else None
        if term is not None:
            agrees = self.chance.choice((None, None, True, False))
            term.step_down(
                "schedule",
                cool_down=self.chance.choice((0.0, 3.0)),
                willing=None if agrees is None else lambda said: bool(agrees),
            )

    def stop(self) -> None:
        if self.election is not None:
            self.election.stop()

    def cancel(self) -> None:
        """One of the two, and sometimes once more while it still gives its lock away."""
        if (task := self.chance.choice((self.leading, self.holding))) is not None:
            task.cancel()
            if self.chance.random() < 0.5:
                asyncio.get_running_loop().call_later(self.chance.choice((0, 0.001, 0.1, 1)), task.cancel)

    def restart(self) -> None:
        """It ends in good order, and begins anew."""
        self.restarting.set()
        self._end_work()

    def crash(self) -> None:
        """It ends without a word to the store, and begins anew."""
        self.driver.down()
        self.restart()

    def rest(self, seconds: float | None = None) -> None:
        """Contend for nothing for a while; the session stays, and whatever it still holds without knowing."""
        self.resting_until = clock.now() + (seconds or self.chance.uniform(0, 20))
        self._end_work()

    def _end_work(self) -> None:
        self.stop()
        if self.holding is not None:
            self.holding.cancel()

    def calm(self) -> None:
        for verb in VERBS:
            self.driver.always(verb, None)
        self.driver.up()

    def leave(self) -> None:
        self.leaving = True
        self._end_work()

    # What it does.

    async def _body(self, term: Term) -> None:
        async with self._at_work(ELECTED, term) as step:
            while not term.stepping_down:
                await step()
            for _ in range(self.chance.randrange(20)):
                await step()

    async def _hold(self, mine: Session) -> None:
        with suppress(LockLost):
            async with mine.lock(HELD).hold() as hold, self._at_work(HELD, hold) as step:
                for _ in range(self.chance.randrange(60)):
                    await step()

    @asynccontextmanager
    async def _at_work(self, name: str, under: Term | Hold) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        work: Work | None = None

        def note() -> None:
            nonlocal work
            if under.is_valid():
                now = clock.now()
                if work is None:
                    token = under.fencing_token
                    work = Work(name, self.name, token, self.store.granted[token], now, now)
                    self.history.works.append(work)
                work.last = now

        async def step() -> None:
            note()
            await asyncio.sleep(self.chance.choice(STEPS))
            note()

        try:
            yield step
        finally:
            note()
            await asyncio.sleep(self.chance.choice((0, 0, 0.2)))  # its own clean-up
            note()
