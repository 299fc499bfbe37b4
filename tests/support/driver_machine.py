"""Clients of one store in whatever order hypothesis thinks of, compared with a model after each step."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, initialize, multiple, rule
from support.driver_ground import CLIENTS, LOCKS, NAMES, OBSERVER, RECORDS, TTL, Ground
from support.driver_model import Held

from cluster_lock import clock
from cluster_lock.values import Changes, Entry, Grant, Lease

SOME = st.one_of(st.just(NAMES), st.tuples(st.sampled_from(NAMES)))


@dataclass(frozen=True)
class Position:
    """What a client was told, as it was at the model's moment `at`; for `names` only."""

    client: int
    opened: int
    value: object
    at: int
    names: tuple[str, ...]
    absent: frozenset[str]
    """The records that were not there then."""


class DriverMachine(Ground):
    leases, revoked = Ground.leases, Ground.revoked
    contenders: Bundle[Entry] = Bundle("contenders")
    positions: Bundle[Position] = Bundle("positions")

    @initialize(target=contenders, lease=leases)
    def begin_to_stand_by(self, lease: Lease) -> Entry | MultipleResults[Entry]:
        return self.announce(lease, self.owner[lease.id][0], RECORDS[0])

    @rule(lease=revoked, client=CLIENTS, name=st.sampled_from(NAMES))
    def ask_under_a_lease_that_is_over(self, lease: Lease, client: int, name: str) -> None:
        if name in LOCKS:
            self.acquire(lease, client, name)
        else:
            self.announce(lease, client, name)
        self.withdraw(lease, client, name)
        self.renew(lease, client)
        self.revoke(lease, client)

    # -- locks ---------------------------------------------------------------------------------------------------------

    @rule(lease=leases, client=CLIENTS, name=st.sampled_from(LOCKS))
    def acquire(self, lease: Lease, client: int, name: str) -> None:
        record, held = self.record(), self.model.keys.get(name)
        driver = self.by(client, lease)
        answer = self.under(lease, driver.acquire(lease, name, record))
        grant = answer[0] if answer else None
        assert answer is None or held is not None or lease.id in self.model.leases, "refused, but the lease is over"
        if lease.id not in self.model.leases or (held is not None and held.lease != lease.id):
            assert grant is None, f"{grant} was granted, but {held} stands there"
            return
        assert grant is not None, f"{name} was refused, but {held} stands there"
        assert (grant.name, grant.lease) == (name, lease)
        taker = self.clients.index(driver), self.opened[self.clients.index(driver)]
        if held is None:
            self.took(grant, record)
            self.takers[name, grant.index] = taker
            self.note("acquired")
        else:
            is_takers = held.told and self.takers.get((name, grant.index)) == taker
            self.found(grant, held, is_takers)
            self.note("acquired again")

    def took(self, grant: Grant, record: bytes) -> None:
        """A new grant."""
        name, model = grant.name, self.model
        assert grant.token > model.tokens.get(name, 0), f"the token went back: {grant.token} after {model.tokens[name]}"
        assert model.seen.get(name, 0) < grant.index >= grant.token
        assert (grant.record, grant.previous) == (record, model.words.get(name)), "not what the last holder left"
        model.put(name, Held(grant.lease.id, record, previous=grant.previous))
        self.granted(grant)

    def found(self, grant: Grant, held: Held, is_takers: bool) -> None:
        """An acquire of what the lease holds already."""
        stands = held.index, self.model.tokens[grant.name], held.record
        assert (grant.index, grant.token, grant.record) == stands, f"acquired again, it is another grant: {grant}"
        assert grant.previous == held.previous or (grant.previous is None and not is_takers)

    def granted(self, grant: Grant) -> None:
        self.model.learn(Entry(grant.name, grant.lease.id, grant.index, grant.record))
        self.model.tokens[grant.name] = grant.token
        self.grants.append(grant)

    def standing(self, name: str) -> Grant | None:
        """The grant of the lock's present term."""
        return next((grant for grant in self.grants if grant.name == name and self.model.stands(grant)), None)

    def late(self, number: int) -> Grant | None:
        """A grant whose term is over; first those whose lease leads the lock again."""
        late = [grant for grant in self.grants if not self.model.stands(grant)]
        late.sort(key=lambda grant: not self.leads_again(grant))
        return late[number % len(late)] if late else None

    def leads_again(self, grant: Grant) -> bool:
        held = self.model.keys.get(grant.name)
        return held is not None and held.lease == grant.lease.id

    @rule(client=CLIENTS, name=st.sampled_from(LOCKS))
    def release(self, client: int, name: str) -> None:
        if grant := self.standing(name):
            farewell = self.record(released=True)
            self.run(self.clients[client].release(grant, farewell))
            self.model.free(name, farewell)
            self.note("released")

    @rule(client=CLIENTS, number=st.integers(0, 9))
    def release_late(self, client: int, number: int) -> None:
        if grant := self.late(number):
            self.run(self.clients[client].release(grant, self.record(released=True)))
            self.note("released late, in a later term" if self.leads_again(grant) else "released late")

    @rule(lease=leases, client=CLIENTS, name=st.sampled_from(LOCKS), heir=contenders)
    def lead_again(self, lease: Lease, client: int, name: str, heir: Entry) -> None:
        """The next term under the same lease, in which late copies of the requests of the last one arrive."""
        self.acquire(lease, client, name)
        if grant := self.standing(name):
            self.release(client, name)
            self.acquire(grant.lease, client, name)
            self.release_late(client, 0)
            self.reads_as_the_model()
            self.transfer_late(client, 0, heir)

    @rule(lease=leases, client=CLIENTS, name=st.sampled_from(LOCKS), heir=contenders)
    def transfer(self, lease: Lease, client: int, name: str, heir: Entry) -> None:
        """Of the present term, or of a new one."""
        self.acquire(lease, client, name)
        if (grant := self.standing(name)) and self.clients[client].traits.transfers:
            self.give(client, grant, heir)

    def give(self, client: int, grant: Grant, heir: Entry) -> None:
        record, waits = self.record(), self.model.waits(heir)
        given = self.run(self.clients[client].transfer(grant, heir, record))
        assert given is waits, f"transferred: {given}; the heir waits: {waits}"
        if not given:
            self.note("transferred to an heir that left")
            return
        self.note("transferred")
        assert heir.lease is not None
        was = self.model.keys[grant.name].record
        self.model.put(grant.name, Held(heir.lease, record, previous=was, told=False))
        entry = self.look(OBSERVER)[grant.name]
        # As the heir makes it, of what it has read.
        self.granted(Grant(grant.name, self.model.leases[heir.lease], entry.index, entry.index, record))

    @rule(client=CLIENTS, number=st.integers(0, 9), heir=contenders)
    def transfer_late(self, client: int, number: int, heir: Entry) -> None:
        if (grant := self.late(number)) and self.clients[client].traits.transfers:
            given = self.run(self.clients[client].transfer(grant, heir, self.record()))
            assert not given, "transferred a grant whose term is over"
            self.note("transferred late, in a later term" if self.leads_again(grant) else "transferred late")

    # -- records -------------------------------------------------------------------------------------------------------

    @rule(target=contenders, lease=leases, client=CLIENTS, name=st.sampled_from(RECORDS))
    def announce(self, lease: Lease, client: int, name: str) -> Entry | MultipleResults[Entry]:
        record = self.record()
        if not self.under(lease, self.by(client, lease).announce(lease, name, record)):
            return multiple()
        # `under` lets a None pass.
        assert lease.id in self.model.leases, "announced under a lease that is over"
        self.model.put(name, Held(lease.id, record))
        return self.look(OBSERVER)[name]

    @rule(lease=leases, client=CLIENTS, name=st.sampled_from(RECORDS))
    def withdraw(self, lease: Lease, client: int, name: str) -> None:
        self.run(self.by(client, lease).withdraw(lease, name))
        held = self.model.keys.get(name)
        if held is not None and held.lease == lease.id:
            self.model.free(name)
            self.note("withdrawn")

    # -- looking -------------------------------------------------------------------------------------------------------

    @rule(target=positions, client=CLIENTS, names=SOME)
    def read(self, client: int, names: Collection[str]) -> Position:
        changes = self.run(self.clients[client].read(names))
        self.agreed(changes, names)
        return self.position(client, changes.position, names)

    def position(self, client: int, value: object, names: Collection[str]) -> Position:
        absent = frozenset(RECORDS) - self.model.keys.keys()
        return Position(client, self.opened[client], value, self.model.now, tuple(names), absent)

    @rule(client=CLIENTS, prefix=st.sampled_from(("leader/", "standby/", "invite/", "")))
    def scan(self, client: int, prefix: str) -> None:
        entries = self.run(self.clients[client].scan(prefix))
        held = {name for name in self.model.keys if name.startswith(prefix)}
        assert {entry.name for entry in entries} == held, f"scanned {entries}"
        for entry in entries:
            self.agree(entry.name, entry)
        indexes = [entry.index for entry in entries]
        assert indexes == sorted(set(indexes)), "a scan is in the order of the last changes"

    @rule(target=positions, since=positions, names=SOME)
    def wait_changed(self, since: Position, names: Collection[str]) -> Position | MultipleResults[Position]:
        if since.opened != self.opened[since.client]:
            return multiple()  # another client's: it was closed
        asked = [name for name in names if name in since.names] or list(since.names)
        return self.position(since.client, self.run(self.told(since, asked)), asked)

    async def told(self, since: Position, names: Collection[str], first: Changes | None = None) -> object:
        """Go on from `since` until all that changed was told as it stands now; the position after it."""
        wanted, told, position = self.model.changed(names, since.at), dict[str, Entry](), since.value
        wanted -= since.absent - self.model.keys.keys()  # such a record came and went
        self.note("told of what changed" if wanted else "told that nothing changed")
        give_up = clock.now() + self.runner.patience
        while True:
            left = max(0.0, give_up - clock.now()) if wanted else 0.0
            changes, first = first or await self.clients[since.client].wait_changed(names, position, left), None
            assert changes.entries.keys() <= set(names)
            told.update(changes.entries)
            position = changes.position
            if wanted <= told.keys() and all(map(self.model.agrees, told.values())):
                break
            assert clock.now() < give_up, f"not told of {wanted}, but {told}; what stands: {self.model.keys}"
        for name, entry in told.items():
            self.agree(name, entry)
        return position

    @rule(client=CLIENTS, name=st.sampled_from(LOCKS), lease=leases)
    def hear_of_a_short_term(self, client: int, name: str, lease: Lease) -> None:
        """Taken and freed again since the position: it looks as it did."""
        since = self.read(client, [name])
        self.acquire(lease, 1 - client, name)
        self.release(1 - client, name)
        self.wait_changed(since, [name])

    @rule(target=positions, client=CLIENTS, lease=leases, name=st.sampled_from(RECORDS))
    def announce_while_the_other_waits(
        self, client: int, lease: Lease, name: str
    ) -> Position | MultipleResults[Position]:
        if lease.id not in self.model.leases:
            return multiple()
        return self.run(self._announce_while_the_other_waits(client, lease, name))

    async def _announce_while_the_other_waits(self, client: int, lease: Lease, name: str) -> Position:
        driver, record = self.clients[client], self.record()
        before = self.position(client, (await driver.read(NAMES)).position, NAMES)
        waiting = asyncio.ensure_future(driver.wait_changed(NAMES, before.value, TTL / 3))
        await asyncio.sleep(0)
        try:
            await self.by(1 - client, lease).announce(lease, name, record)
            self.model.put(name, Held(lease.id, record))
            first = await waiting
        finally:
            waiting.cancel()
        return self.position(client, await self.told(before, list(NAMES), first), NAMES)

    # -- clients -------------------------------------------------------------------------------------------------------

    @rule(client=CLIENTS)
    def open_anew(self, client: int) -> None:
        """Its leases live on without it, unless they are the kind that ends with it."""
        expires = self.clients[client].traits.expires
        for _ in range(2):
            self.run(self.clients[client].close())
        for lease_id, owner in self.owner.items():
            if not expires and owner == (client, self.opened[client]):
                self.model.end(lease_id)
        self.opened[client] += 1
        self.clients[client] = self.new_client(self.prefix)
        self.run(self.clients[client].open())
