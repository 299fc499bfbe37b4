"""What persons put into PostgreSQL's tables, and names that it cannot hold: no verb fails for the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.leases import first_lease
from support.postgres import LATE, driver_at, set_up_long_ago

from cluster_lock import clock
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.errors import BackendRefused, ConfigError, ForeignValue
from cluster_lock.testing.servers import PostgresServer, ServerFailed
from cluster_lock.values import Entry, Grant

pytestmark = pytest.mark.postgres

LARGEST = 9007199254740992
X, Y = "leader/x", "leader/y"
TOO_LONG = 20.0
"""Seconds of a wait that something has to end before."""


@pytest.fixture
def server(postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


def put(server: PostgresServer, *, index: int | str = LARGEST, record: str = "'junk'", lease: str = "NULL") -> None:
    server.sql(
        "INSERT INTO cluster_lock.key (prefix, name, record, lease, index)"
        f" VALUES ('test/', '{X}', {record}, {lease}, {index})"
    )


@pytest.mark.parametrize("with_lease", [False, True])
async def test_an_index_that_no_turn_has_reached_hides_no_change(server: PostgresServer, with_lease: bool) -> None:
    """Beside a row with the largest index, with a lease that lives or without one, each change of another key is told
    at once, and what was told once is not told again."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        put(server, lease=f"'{lease.id}'" if with_lease else "NULL")
        position = (await driver.read([X, Y])).position
        grant = await driver.acquire(lease, Y, b"a")
        begun = clock.now()
        seen = await driver.wait_changed([X, Y], position, TOO_LONG)
        assert clock.now() - begun < LATE
        assert grant is not None
        assert seen.entries[Y].index == grant.index
        begun = clock.now()
        await driver.wait_changed([X, Y], seen.position, 1.0)
        assert clock.now() - begun > 0.5


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cluster_lock.key SET record = 'other'",
        "UPDATE cluster_lock.key SET index = index - 1",
        "DELETE FROM cluster_lock.key",
    ],
)
async def test_a_strangers_row_that_changes_is_told(server: PostgresServer, change: str) -> None:
    """Whatever its index says: who asks after it hears of it."""
    async with driver_at(server.dsn) as driver:
        put(server)
        position = (await driver.read([X, Y])).position
        server.sql(f"{change} WHERE name = '{X}'")
        begun = clock.now()
        await driver.wait_changed([X, Y], position, TOO_LONG)
        assert clock.now() - begun < LATE


@pytest.mark.parametrize("index", ["DEFAULT", "1", str(LARGEST)])
@pytest.mark.parametrize("with_lease", [False, True])
async def test_a_persons_row_does_not_look_as_if_the_store_went_back(
    server: PostgresServer, index: str, with_lease: bool
) -> None:
    """While a person puts a row there and deletes it, with whatever index, and the lock is taken after that, the index
    that is told of the key never falls; and as a token no such index is given."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease("a", 60.0)
        await driver.announce(lease, "standby/a", b"a")
        told = [(await driver.read([X])).entries[X].index]
        if not (with_lease and index == "1"):  # which is what a turn could have put there
            put(server, index=index, lease=f"'{lease.id}'" if with_lease else "NULL")
        told.append((await driver.read([X])).entries[X].index)
        told += [entry.index for entry in await driver.scan(X)]
        if index != "1":
            with pytest.raises(ForeignValue):
                await driver.acquire(lease, X, b"a")
        server.sql(f"DELETE FROM cluster_lock.key WHERE name = '{X}'")
        told.append((await driver.read([X])).entries[X].index)
        grant = await driver.acquire(lease, X, b"a")
        assert grant is not None
        told += [(await driver.read([X])).entries[X].index, grant.token]
        assert told == sorted(told)
        assert told[-1] < LARGEST


async def test_a_row_that_no_turn_could_have_put_there_is_refused(server: PostgresServer) -> None:
    """An index below 1 or above all tokens, and a holder without a record: the server takes no such row."""
    for values in ({"index": -1}, {"index": 0}, {"index": LARGEST + 1}, {"record": "NULL", "lease": "'a'"}):
        with pytest.raises(ServerFailed, match="of_a_turn"):
            put(server, **values)


async def test_a_schema_that_took_such_rows_is_mended(server: PostgresServer) -> None:
    """Tables of this version that were made before the rule get it from who may, beside rows that break it."""
    server.sql("ALTER TABLE cluster_lock.key DROP CONSTRAINT of_a_turn")
    put(server, index=LARGEST + 1)
    async with driver_at(server.dsn) as driver:
        lease = await first_lease(driver, 1.0)
        await driver.acquire(lease, Y, b"a")
        with pytest.raises(ServerFailed, match="of_a_turn"):
            server.sql("INSERT INTO cluster_lock.key (prefix, name, index) VALUES ('test/', 'leader/z', -1)")


async def test_a_swept_row_with_such_an_index_ends_no_wait(server: PostgresServer) -> None:
    """After a row of the largest index was swept away, who waits still waits."""
    async with driver_at(server.dsn) as driver:
        put(server, lease="'gone'")
        server.sql("UPDATE cluster_lock.key SET changed_at = changed_at - interval '2 hours', name = 'standby/x'")
        lease = await driver.grant_lease("a", 60.0)
        await driver.announce(lease, "standby/a", b"a")
        assert server.sql("SELECT count(*) FROM cluster_lock.key WHERE name = 'standby/x'") == "0"
        await driver.withdraw(lease, "standby/a")
        position = (await driver.read([Y])).position
        begun = clock.now()
        await driver.wait_changed([Y], position, 1.0)
        assert clock.now() - begun > 0.5


@pytest.mark.parametrize("bad", ["leader/a\0b", "leader/a\udcff"])
async def test_a_name_that_postgresql_cannot_hold(server: PostgresServer, bad: str) -> None:
    """A NUL or half a character: who wants such a name is refused in one sentence, nothing stands there, and who reads
    or waits for others beside it hears of these."""
    async with driver_at(server.dsn) as driver:
        lease = await driver.grant_lease(f"a of {bad}", 60.0)
        heir = Entry("standby/b", lease.id, 1, b"b")
        for verb in (
            driver.acquire(lease, bad, b"a"),
            driver.announce(lease, bad, b"a"),
            driver.withdraw(lease, bad),
            driver.release(Grant(bad, lease, 1, 1, b"a", None), b"a"),
            driver.transfer(Grant(bad, lease, 1, 1, b"a", None), heir, b"b"),
            driver.transfer(Grant(Y, lease, 1, 1, b"a", None), Entry(bad, lease.id, 1, b"b"), b"b"),
            driver.scan(bad),
            driver.inspect(bad),
        ):
            with pytest.raises(BackendRefused, match=r"'leader/a\\\w+' cannot be the name") as refused:
                await verb
            assert str(refused.value).isprintable()
        seen = await driver.read([bad, Y])
        assert [seen.entries[name].lease for name in (bad, Y)] == [None, None]
        await driver.acquire(lease, Y, b"a")
        seen = await driver.wait_changed([bad, Y], seen.position, TOO_LONG)
        assert seen.entries[Y].lease == lease.id
        assert (await driver.wait_changed([bad], seen.position, 0.1)).entries[bad].record is None


@pytest.mark.parametrize("bad", ["a\0b/", "a\udcff/"])
def test_a_prefix_that_postgresql_cannot_hold(bad: str) -> None:
    """It is wrong settings, in one sentence."""
    with pytest.raises(ConfigError, match="prefix must not"):
        PostgresDriver("host=localhost", prefix=bad, request_timeout=1.0)
