"""Who looks at PostgreSQL changes nothing there, also where nothing is set up, and needs the right to read alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.backends import Backend
from support.company import write_config
from support.leases import first_lease
from support.postgres import LATE, driver_at, set_up_long_ago

from cluster_lock import clock
from cluster_lock.cli import main
from cluster_lock.errors import NoLeaseYet, PermissionRefused
from cluster_lock.testing.servers import PostgresServer
from cluster_lock.values import Timing

pytestmark = pytest.mark.postgres

LOCK = "leader/x"


@pytest.fixture
def server(postgres_release: str) -> Iterator[PostgresServer]:
    """An empty one, with a role `looker` that may make nothing."""
    with PostgresServer(release=postgres_release) as server:
        server.sql("CREATE ROLE looker LOGIN PASSWORD 'right-one'")
        yield server


def is_set_up(server: PostgresServer) -> bool:
    return server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'cluster_lock'") == "1"


async def test_a_look_at_nothing_makes_nothing(server: PostgresServer) -> None:
    """Each verb that only looks says that nothing is there; the first lease makes the schema, and who has waited since
    before that hears of a lock."""
    async with driver_at(server.dsn_of("looker"), password="right-one") as looker:
        changes = await looker.read([LOCK])
        assert changes.entries[LOCK].lease is None
        assert await looker.scan("") == []
        assert await looker.inspect("") == []
        assert await looker.lease_times(["a"]) == {}
        (node,) = await looker.nodes()
        assert "nothing is set up here yet" in (node.problem or "")
        assert (await looker.wait_changed([LOCK], changes.position, 0.2)).entries[LOCK].record is None
        assert not is_set_up(server)
        with pytest.raises(PermissionRefused, match="init-db"):
            await looker.grant_lease("a", 1.0)
        assert not is_set_up(server)
    async with driver_at(server.dsn) as driver:
        changes = await driver.read([LOCK])
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("a", 1.0)
        assert is_set_up(server)
        grant = await driver.acquire(await first_lease(driver, 1.0), LOCK, b"a")
        begun = clock.now()
        seen = await driver.wait_changed([LOCK], changes.position, 20.0)
        assert grant is not None
        assert seen.entries[LOCK].index == grant.index
        assert clock.now() - begun < LATE


async def test_who_may_only_read_can_look(server: PostgresServer) -> None:
    """With USAGE and SELECT all that stands there is seen."""
    set_up_long_ago(server)
    server.sql(
        "GRANT USAGE ON SCHEMA cluster_lock TO looker; GRANT SELECT ON ALL TABLES IN SCHEMA cluster_lock TO looker"
    )
    async with driver_at(server.dsn) as driver, driver_at(server.dsn_of("looker"), password="right-one") as looker:
        lease = await driver.grant_lease("a", 60.0)
        await driver.acquire(lease, LOCK, b"a")
        assert (await looker.read([LOCK])).entries[LOCK].lease == lease.id
        assert [entry.name for entry in await looker.scan("")] == [LOCK]
        assert [entry.name for entry in await looker.inspect("")] == [LOCK]
        assert list(await looker.lease_times([lease.id])) == [lease.id]
        (node,) = await looker.nodes()
        assert node.problem is None


def test_commands_on_an_empty_database(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status` says that nothing is set up, makes nothing, and ends well; `doctor` asks for a lease, and says what
    right is missing."""
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    section = {"dsn": server.dsn_of("looker"), "password": "right-one"}
    timing = Timing(ttl=4.0, margin=1.0, stop_time=0.5)
    config = write_config(tmp_path / "c.yaml", Backend("postgres", section, server), "cluster-lock/", timing)
    assert main(["status", "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert "nothing is set up here yet" in told
    assert "no locks under cluster-lock/" in told
    assert main(["status", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["locks"] == []
    assert main(["doctor", "--no-telegram", "--config", str(config)]) == 77
    told = capsys.readouterr().out
    assert "nothing is set up here yet" in told
    assert "init-db" in told
    assert not is_set_up(server)
