"""A PostgreSQL primary and its replica, and another server in the place of one: who may lead then, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.aio import until
from support.leases import first_lease
from support.postgres import driver_at, dump, set_up_long_ago
from support.stores import TIMING

from cluster_lock import clock
from cluster_lock.drivers.bounded import BoundedDriver
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.errors import BackendUnavailable, LeaseExpired, LockLost, NoLeaseYet
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import PostgresServer

pytestmark = pytest.mark.postgres

LOCK = "leader/x"
TTL = 5.0


@pytest.fixture
def primary(postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


@pytest.fixture
def replica(primary: PostgresServer, postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release, primary=primary) as server:
        yield server


def both(primary: PostgresServer, replica: PostgresServer) -> str:
    return f"host=127.0.0.1,127.0.0.1 port={primary.port},{replica.port} user=postgres dbname=postgres"


async def follows(replica: PostgresServer, lease: str) -> None:
    """Until the replica knows of a lock under the lease."""
    known = f"SELECT count(*) FROM cluster_lock.key WHERE lease = '{lease}'"
    await until(lambda: replica.sql(known) == "1")


async def test_a_replica_gives_nothing(primary: PostgresServer, replica: PostgresServer) -> None:
    """A replica alone gives no lease and says what it is; with its primary in the list it is passed over."""
    async with driver_at(replica.dsn) as driver:
        with pytest.raises(BackendUnavailable, match="takes writes: a replica, or read-only") as refused:
            await driver.grant_lease("a", TTL)
        assert "\n" not in str(refused.value)
    async with driver_at(both(replica, primary)) as driver:
        await driver.grant_lease("a", TTL)


async def test_a_leader_goes_on_at_the_promoted_replica(primary: PostgresServer, replica: PostgresServer) -> None:
    """A lease that the replica knew of is renewed there, with its lock and token; others wait for one ttl."""
    async with driver_at(both(primary, replica)) as driver:
        lease = await driver.grant_lease("a", 30.0)
        grant = await driver.acquire(lease, LOCK, b"a")
        assert grant is not None
        await follows(replica, lease.id)
        primary.kill()
        replica.promote()
        await driver.renew(lease)
        again = await driver.acquire(lease, LOCK, b"a")
        assert again is not None
        assert again.token == grant.token
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("b", 2.0)
        with pytest.raises(BackendUnavailable, match="nobody yet"):
            await driver.acquire(lease, "leader/other", b"a")


async def test_who_leads_at_the_old_primary_has_stopped_before_the_next(
    primary: PostgresServer, replica: PostgresServer
) -> None:
    """A leader who reaches the old primary alone, which answers nothing any more, has stopped its work before somebody
    leads at the promoted replica."""
    over: list[float] = []

    def session(dsn: str, name: str) -> Session:
        driver = PostgresDriver(dsn, prefix="test/", request_timeout=TIMING.request)
        return Session(driver, instance=name, timing=TIMING, guard=NoGuard())

    async def leads(old: Session) -> None:
        try:
            async with old.lock("x").hold():
                leading.set()
                await asyncio.Event().wait()
        except LockLost:
            pass
        finally:
            over.append(clock.now())

    leading = asyncio.Event()
    async with session(both(primary, replica), "new") as new, session(primary.dsn, "old") as old:
        first = asyncio.ensure_future(leads(old))
        await leading.wait()
        lease = primary.sql("SELECT lease FROM cluster_lock.key WHERE name = 'leader/x'")
        await follows(replica, lease)
        primary.pause()
        replica.promote()
        async with new.lock("x").hold():
            begun = clock.now()
            assert over, "two lead"
            assert over[0] <= begun
        await first
        primary.kill()


async def test_what_the_replica_never_saw_is_lost(primary: PostgresServer, replica: PostgresServer) -> None:
    """A lock that was given while the replica did not follow is lost with the primary. Its holder's lease is over,
    nobody gets it before one ttl has passed since the promotion, and then with a token that is larger all the same."""
    async with driver_at(both(primary, replica)) as driver:
        known = int(replica.sql("SELECT coalesce(max(index), 0) FROM cluster_lock.key"))
        replica.stop()
        lease = await driver.grant_lease("a", TTL)
        for _ in range(40):  # PostgreSQL writes down numbers of a sequence 32 ahead
            grant = await driver.acquire(lease, LOCK, b"a")
            assert grant is not None
            await driver.release(grant, b"")
        lost = await driver.acquire(lease, LOCK, b"a")
        assert lost is not None
        primary.kill()
        await asyncio.to_thread(replica.start)
        promoted = clock.now()
        replica.promote()
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)
        heir = await first_lease(driver, TTL)
        assert clock.now() - promoted >= TTL
        taken = await driver.acquire(heir, LOCK, b"b")
        assert taken is not None
        assert taken.previous is None
        assert taken.token > lost.token > known


async def test_the_same_tables_on_another_server(primary: PostgresServer, postgres_release: str) -> None:
    """Tables that were restored into another cluster of PostgreSQL are known for it: nobody gets a lease for one ttl,
    and then tokens go on where the backup was made."""
    async with driver_at(primary.dsn) as driver:
        grant = await driver.acquire(await driver.grant_lease("a", TTL), LOCK, b"a")
        assert grant is not None
    saved = dump(primary, postgres_release)
    primary.kill()
    primary.lose_data()
    await asyncio.to_thread(primary.start)
    begun = clock.now()
    primary.sql(saved)
    async with driver_at(primary.dsn) as driver:
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("b", TTL)
        heir = await first_lease(driver, TTL)
        assert clock.now() - begun >= TTL
        taken = await driver.acquire(heir, LOCK, b"b")
        assert taken is not None
        assert taken.token > grant.token
        assert taken.previous == b"a"


async def test_a_backup_in_the_place_of_the_tables(primary: PostgresServer, postgres_release: str) -> None:
    """Tables that were restored while the server ran are known for it, as are those that were made anew: nobody gets a
    lease for one ttl, and no token comes again."""
    async with driver_at(primary.dsn) as driver, driver_at(primary.dsn) as other:
        saved = dump(primary, postgres_release)
        last = 0
        for restored in (saved, ""):
            grant = await driver.acquire(await first_lease(driver, TTL), LOCK, b"a")
            assert grant is not None
            assert grant.token > last
            last = grant.token
            begun = clock.now()
            primary.sql("DROP SCHEMA cluster_lock CASCADE")
            if restored:
                primary.sql(restored)
            heir = await first_lease(other, TTL)
            assert clock.now() - begun >= TTL
            taken = await other.acquire(heir, LOCK, b"b")
            assert taken is not None
            assert taken.token > last
            last = taken.token
            await other.revoke(heir)


async def test_a_primary_that_falls_silent(primary: PostgresServer, replica: PostgresServer) -> None:
    """However many connections to it there are, a request or two find it out, and not one for each of them: the leases
    that the replica knows go on there."""
    async with driver_at(both(primary, replica), limit=2.0) as own:
        driver = BoundedDriver(own, 2.0)  # as a session has it
        lease = await driver.grant_lease("a", 60.0)
        await asyncio.gather(*(driver.read([LOCK]) for _ in range(4)))
        await until(lambda: replica.sql("SELECT count(*) FROM cluster_lock.lease") == "1")
        primary.pause()
        try:
            replica.promote()
            failed = 0
            while True:
                try:
                    await driver.renew(lease)
                    break
                except BackendUnavailable:
                    failed += 1
            assert failed <= 2
        finally:
            primary.resume()
