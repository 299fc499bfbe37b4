"""What the mode `advisory` of PostgreSQL adds to the lease row, and what happens to the session that has the locks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
from support.aio import until
from support.leases import first_lease
from support.postgres import driver_at, set_up_long_ago
from support.postgres_advisory import LOCK, LOCKED, OTHER, PREFIX, advisory_at, processes, taken
from support.proxy import Proxy

from cluster_lock import clock
from cluster_lock.admin.quarantine import break_now, break_slowly, look_at
from cluster_lock.drivers.postgres import PostgresDriver, advisory, advisory_session
from cluster_lock.drivers.postgres.advisory_session import key_of
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ForeignValue,
    HeldElsewhere,
    LeaseExpired,
)
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import PgBouncer, PostgresServer
from cluster_lock.values import LEADER, Grant, Lease, Record

pytestmark = pytest.mark.postgres

OURS = Record(holder="alice", instance="quarantine by alice", host="ops", pid=1, since="", version="0")


@pytest.fixture
def server(postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


async def closed(driver: PostgresDriver, lease: Lease, name: str = LOCK) -> str:
    """What is said of a lock that is not to be had, although its row is free, when that has lasted for a while."""
    while True:
        try:
            assert await driver.acquire(lease, name, b"late") is None
        except BackendUnavailable as error:
            return str(error)
        await asyncio.sleep(0.1)


async def got(driver: PostgresDriver, lease: Lease, name: str = LOCK) -> Grant:
    """As soon as it is to be had."""
    while True:
        try:
            grant = await driver.acquire(lease, name, lease.holder.encode())
        except BackendUnavailable:
            grant = None
        if grant is not None:
            return grant
        await asyncio.sleep(0.05)


def set_clock_forward(server: PostgresServer) -> None:
    """By an hour: what stands in the store is an hour older."""
    server.sql("UPDATE cluster_lock.lease SET expires_at = expires_at - interval '1 hour'")


async def test_a_clock_that_jumps_forward(server: PostgresServer) -> None:
    """It ends the lease and gives nothing away: the lock is closed until the holder's work has ended and its lease is
    revoked, and who waits is told which process of the server has it."""
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as other:
        first = await taken(driver, await driver.grant_lease("a", 60.0))
        (process,) = processes(server)
        set_clock_forward(server)
        heir = await other.grant_lease("b", 60.0)
        said = await closed(other, heir)
        assert f"the lease of {LOCK} is over, but process {process} of the server (of 127.0.0.1)" in said
        assert (await driver.read([LOCK])).entries[LOCK].lease is None
        with pytest.raises(LeaseExpired):
            await driver.renew(first.lease)
        ours = await driver.grant_lease("a", 60.0)
        assert process in await closed(driver, ours)
        assert process in await closed(other, heir)
        await driver.revoke(first.lease)
        assert (await taken(other, heir)).token > first.token


async def test_a_clock_that_jumps_by_hours(server: PostgresServer) -> None:
    """Nothing is taken for the row of a lock that nobody touched for long, and that may go: the lock stays closed."""
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as other:
        await taken(driver, await driver.grant_lease("a", 60.0))
        (process,) = processes(server)
        server.sql(
            "UPDATE cluster_lock.lease SET expires_at = expires_at - interval '2 hours';"
            "UPDATE cluster_lock.key SET changed_at = changed_at - interval '2 hours'"
        )
        heir = await other.grant_lease("b", 60.0)
        await other.announce(heir, "standby/b", b"b")
        await driver.read([LOCK])
        assert process in await closed(other, heir)


async def test_who_does_not_wait_for_a_closed_lock(server: PostgresServer) -> None:
    """It is held elsewhere, as the one who has it is there still."""
    rival = PostgresDriver(server.dsn, prefix=PREFIX, request_timeout=4.0, mode="advisory")
    async with advisory_at(server.dsn) as driver, Session(rival, instance="b", guard=NoGuard()) as session:
        await taken(driver, await driver.grant_lease("a", 60.0))
        (process,) = processes(server)
        server.sql("UPDATE cluster_lock.lease SET expires_at = expires_at - interval '1 hour' WHERE holder = 'a'")
        with pytest.raises(HeldElsewhere, match=f"process {process} of the server"):
            async with session.lock(LOCK.removeprefix(LEADER)).hold(wait=False):
                pass


async def test_nothing_is_kept_of_what_was_released(server: PostgresServer) -> None:
    """Of a lock that was had once nothing is left in the process, however many there were."""

    def locks() -> int:
        return sum(isinstance(each, asyncio.Lock) for each in gc.get_objects())

    async with advisory_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        await driver.release(await taken(driver, lease), b"")
        before = locks()
        for number in range(20):
            await driver.release(await taken(driver, lease, f"leader/{number}"), b"")
        assert locks() == before


async def test_a_lease_that_nobody_revokes(server: PostgresServer) -> None:
    """After a jump of the clock the lock is free when a ttl has passed since the last renewal, for nobody may work
    under it any more."""
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as other:
        lease = await driver.grant_lease("a", 3.0)
        await taken(driver, lease)
        renewed = clock.now()
        await driver.renew(lease)
        set_clock_forward(server)
        heir = await other.grant_lease("b", 60.0)
        await got(other, heir)
        assert renewed + lease.ttl - 0.2 <= clock.now() < renewed + lease.ttl + 10.0


async def test_the_session_is_ended(server: PostgresServer) -> None:
    """pg_terminate_backend costs the holder nothing: the row keeps the lock until the next renewal has the advisory
    lock again."""
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as other:
        lease, rival = await driver.grant_lease("a", 60.0), await other.grant_lease("b", 60.0)
        grant, beside = await taken(driver, lease), await taken(driver, lease, OTHER)
        (process,) = processes(server)
        server.sql(f"SELECT pg_terminate_backend({process}, 10000)")
        assert processes(server) == []
        assert await other.acquire(rival, LOCK, b"b") is None
        await driver.renew(lease)
        await until(lambda: processes(server) and processes(server, OTHER))
        assert processes(server) != [process]
        assert await other.acquire(rival, LOCK, b"b") is None
        assert (await taken(driver, lease)).token == grant.token
        await driver.release(grant, b"")
        await taken(other, rival)
        assert len(processes(server, OTHER)) == 1
        await driver.release(beside, b"")


async def test_the_server_is_started_again(server: PostgresServer) -> None:
    """The locks that it forgot are taken again by a renewal."""
    async with advisory_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        await taken(driver, lease)
        await asyncio.to_thread(server.restart)
        while not processes(server):
            try:
                await driver.renew(lease)
            except BackendUnavailable:
                continue


async def test_a_client_that_is_cut_off(server: PostgresServer) -> None:
    """The server takes its session for alive, and the lock is closed for that long although the lease is over; who
    waits is told of the process, and ending that one opens it."""
    async with Proxy(server.host, server.port) as proxy, advisory_at(server.dsn) as other:
        dsn = server.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        async with advisory_at(dsn, limit=1.0) as driver:
            lease = await driver.grant_lease("a", 2.0)
            await taken(driver, lease)
            (process,) = processes(server)
            proxy.black_hole()
            heir = await other.grant_lease("b", 60.0)
            said = await closed(other, heir)
            assert f"process {process} " in said
            assert f"SELECT pg_terminate_backend({process})" in said
            with pytest.raises(BackendUnavailable):
                await driver.renew(lease)
            server.sql(f"SELECT pg_terminate_backend({process})")
            await got(other, heir)


async def test_the_server_misses_a_dead_client(server: PostgresServer) -> None:
    """Both ends of the session look after about one ttl whether the other one is there."""
    async with advisory_at(server.dsn) as driver:
        await driver.grant_lease("a", 16.0)
        beside = driver._beside
        assert isinstance(beside, advisory.Advisory)
        connection = beside._session._connection
        assert connection is not None
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        query = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
        (told,) = await connection.ask(f"SELECT {query}", (), clock.now() + 5.0, "look")
        assert [told[name] for name in names] == ["8", "2", "4", "16000"]


async def test_two_names_of_one_number(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one keeps the other closed people are told both names, at once in one process, and else after a while."""
    for module in (advisory, advisory_session):
        monkeypatch.setattr(module, "key_of", lambda prefix, name: -7)
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as other:
        lease = await driver.grant_lease("a", 60.0)
        await taken(driver, lease)
        with pytest.raises(BackendRefused, match=f"{OTHER} and {LOCK} have the same number"):
            await driver.acquire(lease, OTHER, b"a")
        with pytest.raises(BackendRefused, match=f"{OTHER} and {LOCK} have the same number"):
            await closed(other, await other.grant_lease("b", 60.0), OTHER)


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pool_is_refused(server: PostgresServer, mode: str) -> None:
    """Also in session mode, before anybody leads: it may give the session to somebody else."""
    with PgBouncer(server, mode) as pool:
        async with advisory_at(pool.dsn) as driver:
            with pytest.raises(BackendRefused, match="or use the mode lease"):
                await driver.grant_lease("a", 60.0)


async def test_who_is_woken_gets_it_at_the_first_try(server: PostgresServer) -> None:
    """Whoever hears of a release, or of a lease that was revoked, finds row and advisory lock free."""
    async with advisory_at(server.dsn) as one, advisory_at(server.dsn) as two:
        sides = [(one, await one.grant_lease("a", 60.0)), (two, await two.grant_lease("b", 60.0))]
        for turn in range(10):
            (driver, lease), (other, heir) = sides
            grant = await taken(driver, lease)
            waiting = asyncio.ensure_future(other.wait_changed([LOCK], (await other.read([LOCK])).position, 30.0))
            await asyncio.wait([waiting], timeout=0.05)
            ending = asyncio.ensure_future(driver.release(grant, b"") if turn % 2 else driver.revoke(lease))
            assert (await waiting).entries[LOCK].lease is None
            following = await taken(other, heir)
            await ending
            await other.release(following, b"")
            sides = [(other, heir), (driver, lease if turn % 2 else await driver.grant_lease("a", 60.0))]


async def test_an_acquire_of_which_nobody_knows(server: PostgresServer) -> None:
    """Was the row written, the same lease gets its grant, and nobody else before; was it not, the first look gives the
    advisory lock back."""
    async with Proxy(server.host, server.port) as proxy, advisory_at(server.dsn) as other:
        dsn = server.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        async with advisory_at(dsn, limit=1.0) as driver:
            lease, rival = await driver.grant_lease("a", 60.0), await other.grant_lease("b", 60.0)
            lost = proxy.drop_reply(b"written")
            with pytest.raises(BackendUnavailable):
                await driver.acquire(lease, LOCK, b"written")
            await lost.answered.wait()
            assert len(processes(server)) == 1
            assert await other.acquire(rival, LOCK, b"b") is None
            grant = await driver.acquire(lease, LOCK, b"a")
            assert grant is not None
            assert grant.record == b"written"
            held = proxy.hold(b"on its way")
            with pytest.raises(BackendUnavailable):
                await driver.acquire(lease, OTHER, b"on its way")
            assert held.caught.is_set()
            assert len(processes(server, OTHER)) == 1
            await driver.read([OTHER])
            await taken(other, rival, OTHER)
            assert len(processes(server)) == 1


async def test_an_acquire_that_is_cancelled(server: PostgresServer) -> None:
    """It costs the other locks nothing, and after a look the session has no lock more than the rows say."""
    async with advisory_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        await taken(driver, lease)
        (process,) = processes(server)
        names = [f"leader/{number}" for number in range(12)]
        for turns, name in enumerate(names):
            acquiring = asyncio.ensure_future(driver.acquire(lease, name, b"a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            acquiring.cancel()
            await asyncio.wait([acquiring])
        for name in names:
            await driver.acquire(lease, name, b"a")
        for turns, name in enumerate(names):
            await driver.release(await taken(driver, lease, name), b"")
            acquiring = asyncio.ensure_future(driver.acquire(lease, name, b"a"))
            await asyncio.wait([acquiring], timeout=turns * 0.0005)
            acquiring.cancel()
            await asyncio.wait([acquiring])

        def of_rows() -> str:
            return server.sql(f"SELECT count(*) FROM cluster_lock.key WHERE lease = '{lease.id}'")

        await until(lambda: server.sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active'") == "1")
        await driver.read(names)
        await until(lambda: server.sql(f"SELECT count(*) {LOCKED}") == of_rows())
        assert processes(server) == [process]


async def test_a_row_that_is_refused(server: PostgresServer) -> None:
    """The advisory lock is given back at once where the row is not given: of a stranger, or for a while of nobody."""
    async with advisory_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        server.sql(f"INSERT INTO cluster_lock.key (prefix, name, record) VALUES ('{PREFIX}', '{LOCK}', 'x')")
        with pytest.raises(ForeignValue):
            await driver.acquire(lease, LOCK, b"a")
        server.sql("UPDATE cluster_lock.server SET base = clock_timestamp()")
        with pytest.raises(BackendUnavailable, match="nobody yet"):
            await driver.acquire(lease, OTHER, b"a")
        assert server.sql(f"SELECT count(*) {LOCKED}") == "0"


async def test_a_late_release_of_an_earlier_term(server: PostgresServer) -> None:
    """It leaves the advisory lock of the next term alone."""
    async with advisory_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        first = await taken(driver, lease)
        await driver.release(first, b"")
        assert processes(server) == []
        await taken(driver, lease)
        await driver.release(first, b"late")
        assert len(processes(server)) == 1


async def test_a_person_frees_the_row(server: PostgresServer) -> None:
    """By the command at once, not by a move; or by deleting it: the holder's next look gives the advisory lock back."""
    async with advisory_at(server.dsn) as driver, advisory_at(server.dsn) as person:
        lease, heir = await driver.grant_lease("a", 60.0), await person.grant_lease("b", 60.0)
        await taken(driver, lease)
        breaking = await look_at(person, "x", ttl=60.0, request=5.0)
        assert breaking is not None
        with pytest.raises(BackendRefused, match=r"cannot move a lock, .* freed at once \(--now\)"):
            await break_slowly(person, breaking, OURS, request=5.0, moved=lambda: None)
        assert await break_now(person, breaking, OURS, request=5.0)
        assert len(processes(server)) == 1
        await driver.read([LOCK])
        following = await taken(person, heir)
        server.sql(f"DELETE FROM cluster_lock.key WHERE name = '{LOCK}'")
        await person.read([LOCK])
        await taken(driver, lease)
        await person.release(following, b"")
        assert len(processes(server)) == 1


async def test_instances_of_both_modes(server: PostgresServer) -> None:
    """The row keeps them apart, whoever of them holds it."""
    async with advisory_at(server.dsn) as new, driver_at(server.dsn) as old:
        lease, other = await new.grant_lease("a", 60.0), await old.grant_lease("b", 60.0)
        grant = await taken(new, lease)
        assert await old.acquire(other, LOCK, b"b") is None
        await new.release(grant, b"")
        grant = await taken(old, other)
        assert await new.acquire(lease, LOCK, b"a") is None
        assert processes(server) == []
        await old.release(grant, b"")
        await taken(new, lease)


async def test_one_connection_more(server: PostgresServer) -> None:
    """Whatever the number of locks; and none for who only looks."""
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cluster-lock'"
    async with advisory_at(server.dsn) as driver:
        await driver.read([LOCK])
        await driver.inspect("")
        await driver.nodes()
        assert server.sql(ours) == "1"
        lease = await driver.grant_lease("a", 60.0)
        for number in range(20):
            await taken(driver, lease, f"leader/{number}")
        await driver.renew(lease)
        assert server.sql(ours) == "2"
        assert server.sql(f"SELECT count(DISTINCT pid), count(*) {LOCKED}") == "1|20"
    await until(lambda: server.sql(ours) == "0")


async def test_a_table_that_was_dropped(server: PostgresServer) -> None:
    """It is told once and made anew, as in the other mode."""
    async with advisory_at(server.dsn) as driver:
        await taken(driver, await driver.grant_lease("a", 2.0))
        await asyncio.to_thread(server.sql, "DROP TABLE cluster_lock.key")
        lease = await driver.grant_lease("b", 2.0)
        with pytest.raises(BackendUnavailable, match="cluster_lock is gone"):
            await driver.acquire(lease, OTHER, b"b")
        await got(driver, await first_lease(driver, 2.0), OTHER)


def test_the_number_of_a_name() -> None:
    """It is that of docs/postgres.md, and stays: instances of different releases share it."""
    assert key_of("cluster-lock/", "leader/telegram/42") == 8718495968121828136
