"""What a machine of drivers stands on: a loop, three clients of one store, their leases, and a model to compare with.

Two clients act. A third one only looks, so that what the two remember is theirs alone. Each example has a prefix of its
own and leases that do not run out meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from support.aio import PATIENCE
from support.driver_model import Model

from cluster_lock.driver import Driver
from cluster_lock.errors import LeaseExpired
from cluster_lock.values import Changes, Entry, Grant, Lease, Record

T = TypeVar("T")

LOCKS = ("leader/a", "leader/b")
RECORDS = ("standby/a", "standby/b", "invite/a")
NAMES = (*LOCKS, *RECORDS)
TTL = 30.0
"""Seconds, of each lease: longer than an example takes."""
OBSERVER = 2
"""The number of the client that only looks."""
CLIENTS = st.sampled_from((0, 1))


class Runner:
    """One event loop for all examples. `patience`: seconds in which a wait must have told what changed before it."""

    def __init__(self, runner: asyncio.Runner, patience: float) -> None:
        self._runner = runner
        self.patience = patience
        self.reached: Counter[str] = Counter()
        """What happened, and how often: a machine that never gets there proves nothing."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self._runner.run(bounded())


@contextmanager
def runner(patience: float = 10.0) -> Iterator[Runner]:
    with asyncio.Runner() as inner:
        yield Runner(inner, patience)


class Ground(RuleBasedStateMachine):
    """`new_client` makes a driver under a prefix, not yet opened."""

    leases: Bundle[Lease] = Bundle("leases")
    revoked: Bundle[Lease] = Bundle("revoked")

    def __init__(self, runner: Runner, new_client: Callable[[str], Driver]) -> None:
        super().__init__()
        self.runner, self.new_client = runner, new_client
        self.prefix = f"machine-{uuid.uuid4().hex[:12]}/"
        self.model = Model()
        self.clients = [new_client(self.prefix) for _ in range(3)]
        self.opened = [0, 0, 0]
        self.owner: dict[str, tuple[int, int]] = {}
        """Of each lease: the client that asked for it, and how often that had been opened."""
        self.takers: dict[tuple[str, int], tuple[int, int]] = {}
        """Of each grant: the client that has it from an acquire of its own."""
        self.grants: list[Grant] = []
        self.numbers = itertools.count(1)
        for driver in self.clients:
            self.run(driver.open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def note(self, what: str) -> None:
        self.runner.reached[what] += 1

    def record(self, released: bool = False) -> bytes:
        """As the library writes it; no two are alike."""
        name = f"{next(self.numbers)}"
        record = Record(holder=name, instance=name, host="h", pid=1, since="", version="0", released=released)
        return record.to_bytes()

    @initialize(target=leases)
    def begin(self) -> MultipleResults[Lease]:
        return multiple(self.grant_lease(0), self.grant_lease(1))

    def teardown(self) -> None:
        for lease_id in list(self.model.leases):
            self.run(self.clients[OBSERVER].revoke(self.model.leases[lease_id]))
        for driver in self.clients:
            self.run(driver.close())

    # -- leases --------------------------------------------------------------------------------------------------------

    @rule(target=leases, client=CLIENTS)
    def another_lease(self, client: int) -> Lease:
        return self.grant_lease(client)

    def grant_lease(self, client: int) -> Lease:
        holder = f"holder-{next(self.numbers)}"
        lease = self.run(self.clients[client].grant_lease(holder, TTL))
        assert lease.id not in self.owner, f"the lease {lease.id} was granted before"
        assert (lease.holder, lease.ttl > 0) == (holder, True)
        self.model.leases[lease.id] = lease
        self.owner[lease.id] = client, self.opened[client]
        return lease

    @rule(lease=leases, client=CLIENTS)
    def renew(self, lease: Lease, client: int) -> None:
        self.under(lease, self.by(client, lease).renew(lease))

    @rule(target=revoked, lease=consumes(leases), client=CLIENTS)
    def revoke(self, lease: Lease, client: int) -> Lease:
        self.run(self.clients[client].revoke(lease))
        self.model.end(lease.id)
        return lease

    def by(self, client: int, lease: Lease) -> Driver:
        """Who speaks for the lease: any client, but where a lease ends with its client that one alone."""
        return self.clients[client if self.clients[client].traits.expires else self.owner[lease.id][0]]

    def under(self, lease: Lease, call: Coroutine[Any, Any, T]) -> tuple[T] | None:
        """The answer, or None after LeaseExpired, which is raised exactly if the lease is over."""
        lives = lease.id in self.model.leases
        try:
            answer = self.run(call)
        except LeaseExpired as error:
            if lives:
                raise AssertionError("said of a lease that lives") from error
            self.note("lease expired")
            return None
        # Who is refused because somebody else has the lock need not hear that its lease is over as well.
        assert lives or answer is None, f"answered {answer!r} under a lease that is over"
        return (answer,)

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self, client: int) -> Mapping[str, Entry]:
        return self.agreed(self.run(self.clients[client].read(NAMES)), NAMES)

    def agreed(self, changes: Changes, names: Collection[str]) -> Mapping[str, Entry]:
        assert set(changes.entries) == set(names)
        for name, entry in changes.entries.items():
            self.agree(name, entry)
        return changes.entries

    def agree(self, name: str, entry: Entry) -> None:
        held = self.model.keys.get(name)
        assert entry.name == name
        assert self.model.agrees(entry), f"{entry} was read, but {held} stands there, seen at {self.model.seen}"
        self.model.learn(entry)

    @invariant()
    def reads_as_the_model(self) -> None:
        """One holder at most, the one of the model; and nothing changes by what must not change it."""
        self.look(OBSERVER)
