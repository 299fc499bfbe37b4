"""The session that has the advisory locks of a PostgreSQL driver: who has its turn, and what is told of its loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from support.aio import until
from support.postgres import set_up_long_ago
from support.postgres_advisory import LOCK, OTHER, PREFIX, advisory_at, processes, taken
from support.proxy import Proxy

from cluster_lock.aio import end
from cluster_lock.drivers.postgres import PostgresDriver, advisory, holding
from cluster_lock.drivers.postgres.advisory_session import key_of
from cluster_lock.errors import BackendUnavailable
from cluster_lock.testing.servers import PostgresServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.postgres

PATIENT = 20.0
"""Seconds for a request that the proxy keeps."""
A_MOMENT = 0.05
"""Seconds in which requests come to wait for their turn."""


@pytest.fixture
def server(postgres_release: str) -> Iterator[PostgresServer]:
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


@asynccontextmanager
async def through_a_proxy(server: PostgresServer) -> AsyncIterator[tuple[Proxy, PostgresDriver]]:
    async with Proxy(server.host, server.port) as proxy:
        dsn = server.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        async with advisory_at(dsn, limit=PATIENT) as driver:
            yield proxy, driver


def acquiring(driver: PostgresDriver, lease: Lease, name: str) -> asyncio.Future[object]:
    return asyncio.ensure_future(driver.acquire(lease, name, b"a"))


def beside(driver: PostgresDriver) -> advisory.Advisory:
    assert isinstance(driver._beside, advisory.Advisory)
    return driver._beside


async def test_who_has_given_up_costs_nothing(server: PostgresServer) -> None:
    """What waits for its turn when its asker gives up is never asked, and what is at work is undone."""
    async with through_a_proxy(server) as (proxy, driver):
        lease = await driver.grant_lease("a", 60.0)
        held, asked = proxy.hold(b"leader/first"), proxy.capture(b"leader/later")
        first = acquiring(driver, lease, "leader/first")
        await held.caught.wait()
        later = [acquiring(driver, lease, f"leader/later{number}") for number in range(5)]
        await asyncio.wait(later, timeout=A_MOMENT)
        await end([first, *later])
        await held.deliver()
        await taken(driver, lease)
        assert not asked.caught.is_set()
        assert processes(server, "leader/first") == []


async def test_a_release_goes_first(server: PostgresServer) -> None:
    """Whatever waits for a lock here, those that are released are free after one request for all of them."""
    async with through_a_proxy(server) as (proxy, driver), advisory_at(server.dsn) as other:
        lease, rival = await driver.grant_lease("a", 60.0), await other.grant_lease("b", 60.0)
        grants = [await taken(driver, lease, name) for name in (LOCK, OTHER)]
        first, second = proxy.hold(b"leader/first"), proxy.hold(b"leader/second")
        freed = proxy.capture(f'"{key_of(PREFIX, LOCK)}","{key_of(PREFIX, OTHER)}"'.encode())
        taking = [acquiring(driver, lease, "leader/first")]
        await first.caught.wait()
        taking.append(acquiring(driver, lease, "leader/second"))
        await asyncio.wait(taking, timeout=A_MOMENT)
        releasing = [asyncio.ensure_future(driver.release(grant, b"")) for grant in grants]
        await asyncio.wait(releasing, timeout=A_MOMENT)
        await first.deliver()
        await asyncio.gather(*releasing)
        for name in (LOCK, OTHER):
            await taken(other, rival, name)
        assert freed.caught.is_set()
        await second.caught.wait()
        await second.deliver()
        assert None not in await asyncio.gather(*taking)


async def test_a_row_in_doubt_under_a_term_that_is_over(server: PostgresServer) -> None:
    """Nobody looks after its advisory lock any more, so that one is freed, and the row guards alone."""
    async with through_a_proxy(server) as (proxy, driver):
        lease = await driver.grant_lease("a", 1.0)
        # So that the server's end of the lease comes after ours, however busy the machine is.
        server.sql("UPDATE cluster_lock.lease SET expires_at = expires_at + interval '1 hour'")
        held, lost = proxy.hold(LOCK.encode()), proxy.drop_reply(b"written")
        taking = asyncio.ensure_future(driver.acquire(lease, LOCK, b"written"))
        await held.caught.wait()
        await until(lambda: lease.id not in beside(driver)._terms)
        await held.deliver()
        with pytest.raises(BackendUnavailable):
            await taking
        assert lost.answered.is_set()
        await driver.grant_lease("b", 60.0)  # in a turn after that
        assert processes(server) == []


@pytest.mark.parametrize("why", ["too many connections", "process {} of the server"])
async def test_a_session_that_is_not_to_be_had_again(
    server: PostgresServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """After about a ttl people are told once, with the lock and the reason, and once when it is had again."""
    caplog.set_level(logging.INFO, "cluster_lock.drivers")
    server.sql(
        "CREATE ROLE bot LOGIN PASSWORD 'right-one'; GRANT USAGE ON SCHEMA cluster_lock TO bot;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cluster_lock TO bot;"
        "GRANT USAGE ON SEQUENCE cluster_lock.token TO bot"
    )
    async with advisory_at(server.dsn_of("bot"), password="right-one") as driver:
        lease = await driver.grant_lease("a", 60.0)
        await taken(driver, lease)

        async def renewed(times: int) -> list[tuple[str, str]]:
            """What was said by then."""
            for _ in range(times):
                await driver.renew(lease)
                await until(lambda: not beside(driver)._session._tasks)
            return [(each.levelname, each.getMessage()) for each in caplog.records]

        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(server.dsn, autocommit=True) as stranger:
            (process,) = processes(server)
            server.sql(f"SELECT pg_terminate_backend({process}, 10000)")
            if "connections" in why:
                server.sql("ALTER ROLE bot CONNECTION LIMIT 1")
            else:
                stranger.execute("SELECT pg_advisory_lock(%s)", [key_of(PREFIX, LOCK)])
                why = why.format(stranger.info.backend_pid)
            assert await renewed(2) == []
            monkeypatch.setattr(holding, "_LONG", 0.0)
            (said,) = await renewed(3)
            assert said[0] == "WARNING"
            assert f"the advisory lock of {LOCK} was lost" in said[1]
            assert why in said[1]
        server.sql("ALTER ROLE bot CONNECTION LIMIT -1")
        assert (await renewed(3))[1:] == [("INFO", f"the advisory lock of {LOCK} is had again")]
        assert len(processes(server)) == 1
