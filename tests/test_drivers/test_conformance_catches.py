"""The suite is worth something only if it fails: each driver here has one fault that somebody once shipped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import ClassVar

import pytest
from support.faulty_drivers import AcquiringAgainWritesAgain, ComparingStates, WaitingFromNow, WithdrawingAnything

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import LeaseExpired
from cluster_lock.testing import virtual_time
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits


class Fault:
    """A store and a driver that are right but for what a subclass changes; `caught_by`: the test that must fail."""

    caught_by: ClassVar[str]
    driver: ClassVar[type[MemoryDriver]] = MemoryDriver
    store: ClassVar[type[MemoryBackend]] = MemoryBackend


class ReleaseGuardedByTheLeaseOnly(Fault):
    caught_by = "test_late_release_of_an_earlier_term_changes_nothing"

    class store(MemoryBackend):  # noqa: N801
        def _stands(self, grant: Grant, key: str) -> bool:
            stands = self._keys.get(key)
            return stands is not None and stands.lease == grant.lease.id


class TransferGuardedByTheLeaseOnly(ReleaseGuardedByTheLeaseOnly):
    caught_by = "test_late_transfer_of_an_earlier_term_changes_nothing"


class TransferWithoutTheContenderCheck(Fault):
    caught_by = "test_transfer_refused_when_the_heir_withdrew"

    class store(MemoryBackend):  # noqa: N801
        def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
            assert heir.lease is not None
            self._put(key, heir.lease, record)
            return True


class TransferThatDeletesFirst(Fault):
    caught_by = "test_transfer_gives_the_lock_in_one_step"

    class driver(MemoryDriver):  # noqa: N801
        async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
            await self.release(grant, b"{}")
            await asyncio.sleep(0.01)
            taken = await self.acquire(Lease(heir.lease or "", 1, "heir"), grant.name, record)
            return taken is not None


class AcquireAgainWritesAgain(Fault):
    caught_by = "test_acquire_again_is_the_same_grant"
    store = AcquiringAgainWritesAgain


class TwoHolders(Fault):
    caught_by = "test_high_contention_has_one_winner"

    class driver(MemoryDriver):  # noqa: N801
        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            found = (await self.read([name])).entries[name]  # look, then leap
            if found.lease is not None:
                return None
            self._backend.stranger_deletes(self._prefix + name)
            return self._backend.acquire(lease, self._prefix + name, name, record)


class FarewellThatStays(Fault):
    caught_by = "test_release_frees_and_leaves_the_farewell_once"

    class store(MemoryBackend):  # noqa: N801
        farewell: bytes | None = None

        def release(self, grant: Grant, key: str, farewell: bytes) -> None:
            super().release(grant, key, farewell)
            self.farewell = farewell

        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            grant = super().acquire(lease, key, name, record)
            return replace(grant, previous=self.farewell) if grant is not None else None


class FarewellLostWithTheReply(Fault):
    caught_by = "test_acquire_again_tells_again_what_was_left"

    class store(MemoryBackend):  # noqa: N801
        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            known = key in self._keys
            grant = super().acquire(lease, key, name, record)
            return replace(grant, previous=None) if grant is not None and known else grant


class TokenOfTheKey(Fault):
    caught_by = "test_tokens_grow_over_every_end_of_a_term"

    class store(MemoryBackend):  # noqa: N801
        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            grant = super().acquire(lease, key, name, record)
            return replace(grant, token=1) if grant is not None else None  # as Consul's LockIndex on a new key


class EarlyExpiry(Fault):
    caught_by = "test_expiry_frees_the_lock_in_time_and_never_early"

    class store(MemoryBackend):  # noqa: N801
        def _expiry(self, ttl: float) -> float:
            return clock.now() + ttl * 0.9


class LateExpiry(Fault):
    caught_by = "test_expiry_frees_the_lock_in_time_and_never_early"

    class store(MemoryBackend):  # noqa: N801
        def _expiry(self, ttl: float) -> float:
            return clock.now() + ttl * 10


class RenewalThatDoesNothing(Fault):
    caught_by = "test_renewal_keeps_the_lock"

    class store(MemoryBackend):  # noqa: N801
        def renew(self, lease: Lease) -> None:
            self._live(lease)


class RenewalThatRevives(Fault):
    caught_by = "test_expired_lease_is_not_revived"

    class driver(MemoryDriver):  # noqa: N801
        async def renew(self, lease: Lease) -> int:
            try:
                return await super().renew(lease)
            except LeaseExpired:
                return 0


class RevocationWithALockDelay(Fault):
    caught_by = "test_revoke_frees_without_delay_and_wakes"

    class store(MemoryBackend):  # noqa: N801
        ended = 0.0

        def end_lease(self, lease_id: str) -> None:
            super().end_lease(lease_id)
            self.ended = clock.now()

        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            if clock.now() < self.ended + 15:
                return None
            return super().acquire(lease, key, name, record)


class AnnouncementOfTheFirst(Fault):
    caught_by = "test_announce_replaces_what_another_lease_wrote"

    class store(MemoryBackend):  # noqa: N801
        def announce(self, lease: Lease, key: str, record: bytes) -> None:
            stands = self._keys.get(key)
            owner = lease.id if stands is None or stands.lease is None else stands.lease
            self._put(key, owner, record)


class WithdrawalOfAnything(Fault):
    caught_by = "test_withdraw_deletes_its_own_only"
    store = WithdrawingAnything


class CorpsesInTheScan(Fault):
    caught_by = "test_announced_key_ends_with_its_lease"

    class driver(MemoryDriver):  # noqa: N801
        seen: ClassVar[dict[str, Entry]] = {}

        async def scan(self, prefix: str) -> list[Entry]:
            return [entry for name, entry in self.seen.items() if name.startswith(prefix)]

        async def announce(self, lease: Lease, name: str, record: bytes) -> None:
            await super().announce(lease, name, record)
            self.seen[name] = Entry(name, lease.id, 1, record)


class ScanByName(Fault):
    caught_by = "test_announced_keys_are_scanned_oldest_first"

    class driver(MemoryDriver):  # noqa: N801
        async def scan(self, prefix: str) -> list[Entry]:
            return sorted(await super().scan(prefix), key=lambda entry: entry.name)


class WaitFromNow(Fault):
    caught_by = "test_change_before_the_wait_is_told_at_once"
    driver = WaitingFromNow


class WaitThatComparesStates(Fault):
    caught_by = "test_short_life_between_two_waits_is_told"
    driver = ComparingStates


class WaitThatTellsOfChangesOneByOne(Fault):
    caught_by = "test_linearizable_wait_tells_of_the_last_change"

    class store(MemoryBackend):  # noqa: N801
        def __init__(self) -> None:
            super().__init__(traits=Traits(linearizable_waits=True))

    class driver(MemoryDriver):  # noqa: N801
        written: ClassVar[list[Grant]] = []

        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            grant = await super().acquire(lease, name, record)
            self.written.extend([grant] if grant else ())
            return grant

        async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            changes = await super().wait_changed(names, since, at_most)
            after = [grant for grant in self.written if isinstance(since, int) and grant.index > since]
            first = {grant.name: Entry(grant.name, grant.lease.id, grant.index, b"") for grant in after[:1]}
            return Changes(changes.position, {**changes.entries, **first})


class WaitThatIsLate(Fault):
    caught_by = "test_wait_returns_in_time"

    class driver(MemoryDriver):  # noqa: N801
        async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            return await super().wait_changed(names, since, at_most * 10)


class WaitThatPolls(Fault):
    caught_by = "test_waiter_is_notified_not_polling"

    class store(MemoryBackend):  # noqa: N801
        async def woken(self, keys: frozenset[str], until: float) -> None:
            await asyncio.sleep(min(0.5, max(0.001, until - clock.now())))


class WaitForTheFirstName(Fault):
    caught_by = "test_one_wait_for_many_names"

    class store(MemoryBackend):  # noqa: N801
        def changed(self, keys: Iterable[str], since: object | None) -> list[str]:
            keys = list(keys)
            return super().changed(keys if since is None else keys[:1], since)


class ForgottenPositionWaits(Fault):
    caught_by = "test_forgotten_position_is_a_fresh_read"

    class store(MemoryBackend):  # noqa: N801
        def changed(self, keys: Iterable[str], since: object | None) -> list[str]:
            if isinstance(since, int) and since > self.index:
                return []
            return super().changed(keys, since)


class AbsentNamesLeftOut(Fault):
    caught_by = "test_read_answers_for_every_name"

    class driver(MemoryDriver):  # noqa: N801
        async def read(self, names: Collection[str]) -> Changes:
            changes = await super().read(names)
            return replace(changes, entries={name: found for name, found in changes.entries.items() if found.lease})


class AbsentAtNoIndex(Fault):
    caught_by = "test_absent_key_has_an_index_at_which_it_was_absent"

    class store(MemoryBackend):  # noqa: N801
        def entry(self, key: str, name: str) -> Entry:
            found = super().entry(key, name)
            return found if found.lease else replace(found, index=0)


class LeaseForEachTry(Fault):
    caught_by = "test_failed_acquires_leak_nothing"

    class driver(MemoryDriver):  # noqa: N801
        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            await self.grant_lease("another", 60)
            return await super().acquire(lease, name, record)


class ForeignValueOverwritten(Fault):
    caught_by = "test_foreign_value_is_named_and_never_overwritten"

    class store(MemoryBackend):  # noqa: N801
        def acquire(self, lease: Lease, key: str, name: str, record: bytes) -> Grant | None:
            stands = self._keys.get(key)
            if stands is not None and stands.lease is None:
                self.stranger_deletes(key)
            return super().acquire(lease, key, name, record)


class NamesThatCollide(Fault):
    caught_by = "test_odd_names_are_all_different_locks"

    class driver(MemoryDriver):  # noqa: N801
        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            return await super().acquire(lease, name.lower(), record)


class NoPrefix(Fault):
    caught_by = "test_prefixes_keep_apart"

    class driver(MemoryDriver):  # noqa: N801
        def __init__(self, backend: MemoryBackend | None = None, *, prefix: str = "") -> None:
            super().__init__(backend, prefix="")


class AcquireThatFailsWhenRepeatedAfterCancellation(Fault):
    caught_by = "test_cancelled_acquire"

    class driver(MemoryDriver):  # noqa: N801
        broken = False

        async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
            if self.broken:
                return None
            try:
                return await super().acquire(lease, name, record)
            except asyncio.CancelledError:
                self.broken = True
                raise


class CancellationIgnored(Fault):
    caught_by = "test_cancelled_reads_and_waits"

    class driver(MemoryDriver):  # noqa: N801
        async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            return await asyncio.shield(asyncio.ensure_future(self._stubborn(names, since, at_most)))

        async def _stubborn(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            return await super().wait_changed(names, since, at_most)

        async def read(self, names: Collection[str]) -> Changes:
            try:
                return await super().read(names)
            except asyncio.CancelledError:
                await asyncio.sleep(60)
                raise


class RevokeThatForgetsTheLocks(Fault):
    caught_by = "test_one_lease_holds_many_and_expires_all"

    class store(MemoryBackend):  # noqa: N801
        def end_lease(self, lease_id: str) -> None:
            if (lease := self._leases.pop(lease_id, None)) and lease.keys:
                self._remove([min(lease.keys)])


class ForgetsItsTokensInARestart(Fault):
    caught_by = "test_a_restart_doubles_nothing"

    class store(MemoryBackend):  # noqa: N801
        def restart(self) -> None:
            self._leases.clear()
            self._keys.clear()
            self.index = 0


class GivesTheLockAwayInARestart(Fault):
    caught_by = "test_a_restart_doubles_nothing"

    class store(MemoryBackend):  # noqa: N801
        def restart(self) -> None:
            self.stranger_deletes(next(iter(self.keys_under(""))))


class DeafAfterARestart(Fault):
    caught_by = "test_a_wait_goes_on_after_a_restart"

    class store(MemoryBackend):  # noqa: N801
        restarted = False

        def restart(self) -> None:
            self.restarted = True

    class driver(MemoryDriver):  # noqa: N801
        async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
            if getattr(self._backend, "restarted", False):
                await asyncio.sleep(at_most)
                return Changes(since, {})
            return await super().wait_changed(names, since, at_most)


class AnswersForAThousandNames(Fault):
    caught_by = "test_one_request_for_thousands_of_names"

    class driver(MemoryDriver):  # noqa: N801
        async def read(self, names: Collection[str]) -> Changes:
            return await super().read(list(names)[:1000])


class ChokesOnAHugeValue(Fault):
    caught_by = "test_a_huge_value_is_foreign_for_its_lock_alone"

    class driver(MemoryDriver):  # noqa: N801
        async def read(self, names: Collection[str]) -> Changes:
            changes = await super().read(names)
            if any(len(entry.record or b"") > 100_000 for entry in changes.entries.values()):
                raise ValueError("too long")
            return changes


class ASecondTransferIsAnError(Fault):
    caught_by = "test_everything_twice_at_once"

    class store(MemoryBackend):  # noqa: N801
        def transfer(self, grant: Grant, key: str, heir: Entry, heir_key: str, record: bytes) -> bool:
            if not super().transfer(grant, key, heir, heir_key, record):
                raise ValueError("not ours")
            return True


class LiesAboutExpiry(Fault):
    caught_by = "test_without_expiry_the_end_of_the_connection_frees_the_lock"

    class store(MemoryBackend):  # noqa: N801
        def __init__(self) -> None:
            super().__init__(traits=Traits(expires=False))

        def _expiry(self, ttl: float) -> float:
            return clock.now() + ttl


def every_fault(base: type[Fault] = Fault) -> list[type[Fault]]:
    return [found for fault in base.__subclasses__() for found in (fault, *every_fault(fault))]


@pytest.mark.parametrize("fault", every_fault(), ids=lambda fault: fault.__name__)
def test_fault_is_caught(fault: type[Fault]) -> None:
    """The suite fails a driver with this fault, in the test that is there for it."""

    class Suite(DriverConformance):
        def setup_method(self) -> None:
            super().setup_method()
            self.memory = fault.store()

        async def open_driver(self) -> Driver:
            return fault.driver(self.memory, prefix=self.prefix)

        async def stranger_writes(self, name: str, value: bytes) -> None:
            self.memory.stranger_writes(self.prefix + name, value)

        async def stranger_deletes(self, name: str) -> None:
            self.memory.stranger_deletes(self.prefix + name)

        async def count_leases(self) -> int:
            return len(self.memory.leases())

        async def forgotten_position(self) -> object:
            return self.memory.index + 1000

        async def restart_server(self) -> None:
            getattr(self.memory, "restart", lambda: None)()

        def run(self, main: Callable[[], Awaitable[None]]) -> None:
            async def awaited() -> None:
                await main()

            virtual_time.run(awaited())

    suite = Suite()
    suite.setup_method()
    with pytest.raises((AssertionError, LookupError, ValueError)):
        getattr(suite, fault.caught_by)()
