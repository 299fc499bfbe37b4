"""TLS to PostgreSQL: who is who, and what is said when it does not fit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.certs import Authority
from support.postgres import driver_at, set_up_long_ago

from cluster_lock.drivers.shared.certificates import validities
from cluster_lock.errors import BackendRefused, ClusterLockError, PermissionRefused
from cluster_lock.testing.servers import PostgresServer, ServerTLS

pytestmark = pytest.mark.postgres

PASSWORD = "right-one"
DAY = dt.timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@contextmanager
def serving(release: str, tls: ServerTLS | None) -> Iterator[PostgresServer]:
    """With a role `bot` that may lead."""
    with PostgresServer(release=release, tls=tls) as server:
        set_up_long_ago(server)
        server.sql(
            f"CREATE ROLE bot LOGIN PASSWORD '{PASSWORD}'; GRANT USAGE ON SCHEMA cluster_lock TO bot;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cluster_lock TO bot;"
            "GRANT USAGE ON SEQUENCE cluster_lock.token TO bot"
        )
        yield server


def said_in_one_line(refused: pytest.ExceptionInfo[ClusterLockError]) -> None:
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_the_servers_name_and_its_ca_count(postgres_release: str, authority: Authority, tmp_path: Path) -> None:
    """With the CA that signed for the server a lease is granted, by TLS. With another one the server is refused in one
    line, and no password is sent to it."""
    tls = ServerTLS(authority.ca, *authority.issue("server", "127.0.0.1"))
    with serving(postgres_release, tls) as server:
        dsn = server.dsn_of("bot")
        async with driver_at(dsn, password=PASSWORD, ca=authority.ca) as driver:
            await driver.grant_lease("a", 30.0)
            by_tls = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'bot'"
            assert server.sql(by_tls) == "t"
        async with driver_at(dsn, password=PASSWORD, ca=Authority(tmp_path / "other").ca) as driver:
            with pytest.raises(BackendRefused, match="certificate verify failed") as refused:
                await driver.grant_lease("a", 30.0)
            said_in_one_line(refused)
        assert "password" not in server.log_tail()


async def test_when_certificates_end_is_told(postgres_release: str, authority: Authority) -> None:
    """Of the files of a driver and of what the server shows; a renewed file counts at once, a broken one changes
    nothing."""
    server_cert, server_key = authority.issue("server", "127.0.0.1", left=7 * DAY)
    cert, key = authority.issue("bot", left=5 * DAY)
    tls = ServerTLS(authority.ca, server_cert, server_key, cert, key)
    with serving(postgres_release, tls) as server:
        async with driver_at(server.dsn_of("bot"), ca=authority.ca, cert=cert, key=key) as driver:
            (shown,) = (await driver.server_certificates()).values()
            assert [shown] == validities(server_cert.read_bytes())
            assert driver.certificates()["cert"] == validities(cert.read_bytes())[0]
            authority.issue("bot", left=9 * DAY)
            renewed = driver.certificates()["cert"]
            assert renewed == validities(cert.read_bytes())[0]
            await driver.grant_lease("a", 30.0)
            cert.write_text("broken")
            assert driver.certificates()["cert"] == renewed


async def test_a_certificate_for_another_name(postgres_release: str, authority: Authority) -> None:
    """A server that shows a certificate of our CA for another host is refused."""
    tls = ServerTLS(authority.ca, *authority.issue("server", "db.example.org"))
    with serving(postgres_release, tls) as server:
        async with driver_at(server.dsn_of("bot"), password=PASSWORD, ca=authority.ca) as driver:
            with pytest.raises(BackendRefused, match=r'for "db\.example\.org".* does not match host name') as refused:
                await driver.grant_lease("a", 30.0)
            said_in_one_line(refused)


async def test_a_server_without_tls(postgres_release: str, authority: Authority) -> None:
    """Who names a CA is never connected without TLS."""
    with serving(postgres_release, None) as server:
        async with driver_at(server.dsn_of("bot"), password=PASSWORD, ca=authority.ca) as driver:
            with pytest.raises(BackendRefused, match="does not support SSL") as refused:
                await driver.grant_lease("a", 30.0)
            said_in_one_line(refused)


async def test_a_certificate_instead_of_a_password(postgres_release: str, authority: Authority) -> None:
    """Where the server asks for a certificate the role is the one that it names; without one nobody comes in."""
    cert, key = authority.issue("bot")
    tls = ServerTLS(authority.ca, *authority.issue("server", "127.0.0.1"), cert, key)
    with serving(postgres_release, tls) as server:
        async with driver_at(server.dsn_of("bot"), ca=authority.ca, cert=cert, key=key) as driver:
            await driver.grant_lease("a", 30.0)
        other, others_key = authority.issue("somebody")
        async with driver_at(server.dsn_of("bot"), ca=authority.ca, cert=other, key=others_key) as driver:
            with pytest.raises(PermissionRefused, match="certificate authentication failed") as refused:
                await driver.grant_lease("a", 30.0)
            said_in_one_line(refused)
        async with driver_at(server.dsn_of("bot"), password=PASSWORD, ca=authority.ca) as driver:
            with pytest.raises(PermissionRefused, match="certificate") as refused:
                await driver.grant_lease("a", 30.0)
            said_in_one_line(refused)
