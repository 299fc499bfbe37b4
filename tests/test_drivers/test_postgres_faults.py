"""What happens to PostgreSQL, and that the driver stays bounded and safe: on servers of each test's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.aio import until
from support.leases import first_lease
from support.postgres import LATE, driver_at, set_up_long_ago

from cluster_lock import clock
from cluster_lock.drivers.postgres.view import Position, View
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    LeaseExpired,
    NoLeaseYet,
    PermissionRefused,
)
from cluster_lock.testing.servers import PgBouncer, PostgresServer

pytestmark = pytest.mark.postgres

LOCK = "leader/x"
LIMIT = 1.0
"""Seconds that a request may take, where it is waited for."""


@pytest.fixture
def server(postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


async def test_a_stopped_server_is_given_up_in_time(server: PostgresServer) -> None:
    """Each verb on a server that answers nothing ends at its limit, whatever psycopg would wait for; and once the
    server goes on, so do we, and a lease that ended meanwhile is over."""
    async with driver_at(server.dsn) as warm, driver_at(server.dsn, limit=LIMIT) as driver:
        lease = await warm.grant_lease("a", 3.0)
        grant = await warm.acquire(lease, LOCK, b"a")
        assert grant is not None
        await driver.read([LOCK])
        server.pause()
        try:
            stopped = clock.now()
            for verb in (
                driver.read([LOCK]),
                driver.renew(lease),
                driver.acquire(lease, LOCK, b"a"),
                driver.grant_lease("b", 3.0),
                driver.wait_changed([LOCK], None, 5.0),
            ):
                begun = clock.now()
                with pytest.raises(BackendUnavailable):
                    await verb
                assert clock.now() - begun < LIMIT + LATE
            await asyncio.sleep(max(0.0, stopped + lease.ttl - clock.now()))
        finally:
            server.resume()
        with pytest.raises(LeaseExpired):
            await warm.renew(lease)
        heir = await warm.grant_lease("b", 30.0)
        taken = await warm.acquire(heir, LOCK, b"b")
        assert taken is not None
        assert taken.token > grant.token
        assert taken.previous == b"a"


async def test_a_wait_on_a_stopped_server_says_so(server: PostgresServer) -> None:
    """Who waits while the server stops hears of it by the heartbeat, or at the end of the wait at the latest."""
    async with driver_at(server.dsn, limit=LIMIT) as driver:
        position = (await driver.read([LOCK])).position
        waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
        await asyncio.wait([waiting], timeout=0.5)
        begun = clock.now()
        server.pause()
        try:
            with pytest.raises(BackendUnavailable):
                await waiting
            assert clock.now() - begun < 2 * LIMIT + 2 * LATE
        finally:
            server.resume()


async def test_sockets_of_others_are_left_alone(server: PostgresServer) -> None:
    """A verb that is given up takes no socket from the watch of the event loop that came to its number since."""
    async with driver_at(server.dsn) as driver:
        await asyncio.gather(*(driver.read([LOCK]) for _ in range(4)))
        server.pause()
        try:
            verbs = [asyncio.ensure_future(driver.read([LOCK])) for _ in range(4)]
            assert all(
                isinstance(error, BackendUnavailable) for error in await asyncio.gather(*verbs, return_exceptions=True)
            )
            heard: list[bytes] = []

            def hear(read: int) -> None:
                heard.append(os.read(read, 1))

            pairs = [os.pipe() for _ in range(20)]
            for read, _ in pairs:
                asyncio.get_running_loop().add_reader(read, hear, read)
            await asyncio.sleep(0.5)  # whatever was given up has ended by now
            for _, write in pairs:
                os.write(write, b"x")
            await until(lambda: len(heard) == len(pairs))
        finally:
            server.resume()
            for read, write in pairs:
                asyncio.get_running_loop().remove_reader(read)
                os.close(read)
                os.close(write)


async def test_killed_and_started_again(server: PostgresServer) -> None:
    """After kill -9 and a start with its data the lock is still its holder's, who renews; a new lease waits one ttl."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 30.0)
        grant = await driver.acquire(lease, LOCK, b"a")
        position = (await driver.read([LOCK])).position
        waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
        await asyncio.wait([waiting], timeout=0.5)
        server.kill()
        with pytest.raises(BackendUnavailable):
            await waiting
        with pytest.raises(BackendUnavailable):
            await driver.renew(lease)
        await asyncio.to_thread(server.start)
        await driver.renew(lease)
        again = await driver.acquire(lease, LOCK, b"a")
        assert grant is not None
        assert again is not None
        assert again.token == grant.token
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("b", 2.0)
        with pytest.raises(BackendUnavailable, match="nobody yet"):
            await driver.acquire(lease, "leader/other", b"a")


async def test_a_server_that_lost_its_data(server: PostgresServer) -> None:
    """Where everything is gone the schema is made anew, the old lease is over, and a new one waits one ttl."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 2.0)
        await driver.acquire(lease, LOCK, b"a")
        server.kill()
        server.lose_data()
        started = clock.now()
        await asyncio.to_thread(server.start)
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])  # on the connection of before, or on tables that are not there
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)
        await first_lease(driver, 2.0)
        assert clock.now() - started >= 2.0


@pytest.mark.parametrize("table", ["key", "lease", "space", "server"])
async def test_a_table_that_was_dropped(server: PostgresServer, table: str) -> None:
    """A dropped table is told once and made anew; nobody gets the lock for one ttl, and tokens go on growing."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 3.0)
        grant = await driver.acquire(lease, LOCK, b"a")
        assert grant is not None
        dropped = clock.now()
        await asyncio.to_thread(server.sql, f"DROP TABLE cluster_lock.{table}")
        told = ""
        taken = None
        while taken is None:
            heir = await first_lease(driver, 3.0)
            try:
                taken = await driver.acquire(heir, LOCK, b"b")
            except BackendUnavailable as error:
                told = told or str(error)
            await asyncio.sleep(0.1)
        assert clock.now() >= dropped + 3.0
        assert taken.token > grant.token
        assert table in ("lease", "server") or "cluster_lock is gone; the next lease" in told


async def test_the_row_of_the_server_was_deleted(server: PostgresServer) -> None:
    """Where nothing tells since when the server stands, it gives nothing away."""
    async with driver_at(server.dsn) as driver:
        await driver.grant_lease("a", 3.0)
        await asyncio.to_thread(server.sql, "DELETE FROM cluster_lock.server")
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("b", 3.0)


async def test_connections_that_the_server_ends(server: PostgresServer) -> None:
    """pg_terminate_backend costs who waits an error, and the next request nothing."""
    async with driver_at(server.dsn) as driver:
        position = (await driver.read([LOCK])).position
        waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
        await asyncio.wait([waiting], timeout=0.5)
        ours = "FROM pg_stat_activity WHERE application_name = 'cluster-lock'"
        assert int(await asyncio.to_thread(server.sql, f"SELECT count(pg_terminate_backend(pid)) {ours}")) >= 2
        with pytest.raises(BackendUnavailable):
            await waiting
        await until(lambda: server.sql(f"SELECT count(*) {ours}") == "0")  # each of them ends in its own time
        await driver.read([LOCK])


async def test_a_pool_in_session_mode_serves(server: PostgresServer) -> None:
    """Behind PgBouncer in session mode a wait is told of a change."""
    with PgBouncer(server, "session") as pool:
        async with driver_at(pool.dsn) as driver, driver_at(server.dsn) as other:
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 20.0))
            await asyncio.wait([waiting], timeout=0.5)
            grant = await other.acquire(await other.grant_lease("a", 30.0), LOCK, b"a")
            begun = clock.now()
            changes = await waiting
            assert grant is not None
            assert changes.entries[LOCK].index == grant.index
            assert clock.now() - begun < 15


async def test_a_pool_in_transaction_mode_is_refused(server: PostgresServer) -> None:
    """Behind PgBouncer in transaction mode nobody gets a lease, and is told why."""
    with PgBouncer(server, "transaction") as pool:
        async with driver_at(pool.dsn) as driver:
            with pytest.raises(BackendRefused, match="pooler in transaction mode"):
                await driver.grant_lease("a", 30.0)


async def test_who_may_not_come_in(server: PostgresServer) -> None:
    """A wrong password, an unknown role, a database that is not there: refused, in the server's words, no secret."""
    server.sql("CREATE ROLE bot LOGIN PASSWORD 'right-one'")
    dsn = server.dsn_of("bot")
    async with driver_at(dsn, password="wrong-one") as driver:
        with pytest.raises(PermissionRefused, match="password authentication failed") as refused:
            await driver.grant_lease("a", 30.0)
        assert "wrong-one" not in str(refused.value)
    async with driver_at(dsn) as driver:
        with pytest.raises(PermissionRefused, match="no password supplied"):
            await driver.grant_lease("a", 30.0)
    nowhere = server.dsn.replace("dbname=postgres", "dbname=nowhere")
    async with driver_at(nowhere) as driver:
        with pytest.raises(BackendRefused, match="does not exist"):
            await driver.grant_lease("a", 30.0)


async def test_a_right_that_is_missing_is_named(server: PostgresServer) -> None:
    """Who may not use the schema hears which rights it needs; with them it leads."""
    server.sql("CREATE ROLE bot LOGIN PASSWORD 'right-one'")
    async with driver_at(server.dsn_of("bot"), password="right-one") as driver:
        with pytest.raises(PermissionRefused, match="GRANT USAGE ON SCHEMA cluster_lock"):
            await driver.grant_lease("a", 30.0)
        server.sql(
            "GRANT USAGE ON SCHEMA cluster_lock TO bot;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cluster_lock TO bot;"
            "GRANT USAGE ON SEQUENCE cluster_lock.token TO bot"
        )
        lease = await driver.grant_lease("a", 30.0)
        grant = await driver.acquire(lease, LOCK, b"a")
        assert grant is not None
        await driver.announce(lease, "standby/a", b"a")
        await driver.release(grant, b"bye")
        await driver.revoke(lease)


async def test_a_schema_that_may_not_be_made(server: PostgresServer) -> None:
    """Where the schema is missing and may not be made, the right and the command are named; init makes it else."""
    server.sql("DROP SCHEMA cluster_lock CASCADE; CREATE ROLE bot LOGIN PASSWORD 'right-one'")
    async with driver_at(server.dsn_of("bot"), password="right-one") as driver:
        with pytest.raises(PermissionRefused, match=r"CREATE ON DATABASE postgres; .*init-db"):
            await driver.grant_lease("a", 30.0)
    async with driver_at(server.dsn) as driver:
        assert await driver.init() is True
    async with driver_at(server.dsn) as driver:
        assert await driver.init() is False


async def test_a_server_that_takes_no_writes(server: PostgresServer) -> None:
    """A read-only server gives no lease, and the text says that it is read-only."""
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    async with driver_at(server.dsn) as driver:
        with pytest.raises(BackendUnavailable, match="read-only"):
            await driver.grant_lease("a", 30.0)


async def test_a_schema_of_a_later_version(server: PostgresServer) -> None:
    """A schema that a later version made is left alone."""
    server.sql("UPDATE cluster_lock.server SET version = 2")
    async with driver_at(server.dsn) as driver:
        with pytest.raises(BackendRefused, match="version 2"):
            await driver.grant_lease("a", 30.0)


@contextmanager
def behind_a_silent_one(server: PostgresServer, release: str) -> Iterator[str]:
    """A dsn of two hosts, of which the first answers nothing."""
    with PostgresServer(release=release) as silent:
        silent.pause()
        try:
            yield f"host=127.0.0.1,127.0.0.1 port={silent.port},{server.port} user=postgres dbname=postgres"
        finally:
            silent.resume()


async def test_a_host_that_is_silent_is_passed_over(server: PostgresServer, postgres_release: str) -> None:
    """Of two hosts the one that does not answer costs its part of the first request only."""
    with behind_a_silent_one(server, postgres_release) as dsn:
        async with driver_at(dsn, limit=12.0) as driver:
            await driver.read([LOCK])
            begun = clock.now()
            await asyncio.gather(*(driver.read([LOCK]) for _ in range(4)))
            assert clock.now() - begun < 5.0


async def test_a_renewal_that_waited_for_its_row_is_judged_after_the_wait(server: PostgresServer) -> None:
    """A lease whose time runs out while its renewal waits for the row is over; so is the one of an heir."""
    async with driver_at(server.dsn, limit=20.0) as driver:
        lease = await driver.grant_lease("a", 2.0)
        await driver.acquire(lease, LOCK, b"a")
        hold = "BEGIN; SELECT 1 FROM cluster_lock.lease FOR UPDATE; SELECT pg_sleep(3); COMMIT"
        holding = asyncio.ensure_future(asyncio.to_thread(server.sql, hold))
        locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await until(lambda: server.sql(locked) == "1")
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)
        await holding


async def test_a_live_lease_is_not_taken_over_after_a_wait_for_its_row(server: PostgresServer) -> None:
    """Who wants a lock waits for the renewal under way, and then sees that the lease lives."""
    async with driver_at(server.dsn, limit=20.0) as driver:
        lease, rival = await driver.grant_lease("a", 2.0), await driver.grant_lease("b", 30.0)
        await driver.acquire(lease, LOCK, b"a")
        renew = (
            "BEGIN; UPDATE cluster_lock.lease SET expires_at = clock_timestamp() + interval '1 minute'"
            f" WHERE id = '{lease.id}'; SELECT pg_sleep(3); COMMIT"
        )
        renewing = asyncio.ensure_future(asyncio.to_thread(server.sql, renew))
        await asyncio.sleep(2.2)  # the old time of the lease is over, the new one is not yet written
        assert await driver.acquire(rival, LOCK, b"b") is None
        await renewing
        await driver.renew(lease)


async def test_requests_at_once_pass_over_a_silent_host(server: PostgresServer, postgres_release: str) -> None:
    """Each of them asks the other host, whoever finds out first that the one is silent."""
    with behind_a_silent_one(server, postgres_release) as dsn:
        async with driver_at(dsn, limit=6.0) as driver:
            await asyncio.gather(*(driver.read([LOCK]) for _ in range(4)))


async def test_a_function_that_is_gone(server: PostgresServer) -> None:
    """One request finds it out, and the next one that is more than a look makes it anew, whatever others have put
    there."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        server.sql("CREATE FUNCTION cluster_lock.of_others() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        server.sql("DROP FUNCTION cluster_lock.read")
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="the next lease, or renewal of one, makes it anew"):
                await driver.read([LOCK])
        await driver.renew(lease)
        await driver.read([LOCK])


async def test_a_process_without_a_descriptor_left_renews(server: PostgresServer) -> None:
    """The connection that it has is enough."""
    resource = pytest.importorskip("resource")
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            await driver.renew(lease)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_host_that_is_no_name(server: PostgresServer) -> None:
    """A name that cannot be one is an error of ours."""
    async with driver_at(server.dsn.replace("127.0.0.1", "a..b")) as driver:
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])


def test_a_lease_that_was_renewed_after_all_is_told() -> None:
    """It looked ended while its renewal was under way: who waits since then is told that it is held."""
    row = {"name": LOCK, "lease": "a", "index": 5, "record": b"a", "ends_in": -0.1, "ttl": 4.0}
    row |= {"space_index": 5, "swept": 0}
    ended = View([LOCK], [{**row, "held": False}], 0.0).changes.position
    assert isinstance(ended, Position)
    assert not View([LOCK], [{**row, "held": False}], 0.0).differs_from(ended)
    assert View([LOCK], [{**row, "held": True, "ends_in": 3.0}], 0.0).differs_from(ended)


async def test_the_word_of_a_holder_outlives_it(server: PostgresServer) -> None:
    """Of a lock that was held once, by one whose lease ended hours ago, the next one reads what that one wrote."""
    async with driver_at(server.dsn) as driver:
        dead = await driver.grant_lease("a", 15.0)
        assert await driver.acquire(dead, "leader/x", b"the word of the first")
        server.sql(
            "UPDATE cluster_lock.lease SET expires_at = expires_at - interval '2 hours';"
            "UPDATE cluster_lock.key SET changed_at = changed_at - interval '2 hours'"
        )
        lease = await driver.grant_lease("b", 15.0)
        await driver.announce(lease, "standby/b", b"b")  # which sweeps
        grant = await driver.acquire(lease, "leader/x", b"b")
        assert grant is not None
        assert grant.previous == b"the word of the first"
