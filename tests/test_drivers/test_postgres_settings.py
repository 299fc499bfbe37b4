"""What the settings, libpq's variables and service files say of PostgreSQL: what is wrong in them is no outage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.certs import Authority
from support.postgres import driver_at

from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.drivers.postgres.address import PostgresAccess
from cluster_lock.errors import BackendRefused, BackendUnavailable, ConfigError
from cluster_lock.testing.servers import PostgresServer

pytestmark = pytest.mark.postgres

HALF = "se-cret\udcff"
"""As Python reads a byte that is no UTF-8."""
Service = Callable[[str], None]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Writes what the service `locks` says."""
    path = tmp_path / "services"
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    return lambda text: (path.write_bytes(f"[locks]\n{text}\n".encode(errors="surrogateescape")), None)[1]


def refusal(**options: Any) -> str:
    """The one sentence, which repeats no secret."""
    with pytest.raises(ConfigError) as refused:
        PostgresDriver(request_timeout=1.0, **options)
    (said,) = refused.value.problems
    assert "se-cret" not in said
    assert said.isprintable()
    return said


def test_each_host_is_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their names, their addresses or both; and with a CA TLS is asked for, whatever PGSSLMODE says."""

    def hosts(dsn: str) -> list[tuple[Any, ...]]:
        attempts = PostgresAccess(dsn).attempts
        return [tuple(attempt.get(name) for name in ("host", "hostaddr", "port")) for attempt in attempts]

    assert hosts("host=a,b port=1,2") == [("a", None, "1"), ("b", None, "2")]
    assert hosts("host=a,b port=1") == [("a", None, "1"), ("b", None, "1")]
    assert hosts("hostaddr=::1,::2 port=1,2") == [(None, "::1", "1"), (None, "::2", "2")]
    assert hosts("host=a,b hostaddr=::1,::2") == [("a", "::1", "5432"), ("b", "::2", "5432")]
    assert len(hosts("host=a")) == 1
    assert "sslmode" not in PostgresAccess("hostaddr=127.0.0.1").attempts[0]
    assert PostgresAccess("host=localhost hostaddr=10.0.0.1").attempts[0]["sslmode"] == "require"
    assert str(PostgresAccess("hostaddr=10.0.0.1")) == "postgres 10.0.0.1:5432"
    monkeypatch.setenv("PGHOST", "c,d")
    assert [host for host, *_ in hosts("port=1")] == ["c", "d"]
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert PostgresAccess("host=a", ca="ca.pem").attempts[0]["sslmode"] == "verify-full"


def test_what_is_wrong_in_the_settings_is_said() -> None:
    """A password in the dsn, half a certificate, a text that is no dsn: each by a sentence that repeats no secret."""
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dsn": "host=x password=se-cret"}, "must not hold a password"),
        ({"dsn": "postgresql://u:se-cret@x/y"}, "must not hold a password"),
        ({"dsn": "se-cret"}, "must be a connection string"),
        ({"cert": "a.pem"}, "needs both"),
        ({"dsn": "sslmode=prefer", "ca": "ca.pem"}, "ca asks for TLS"),
        ({"dsn": "target_session_attrs=read-only"}, "never reaches"),
        ({"mode": "se-cret"}, "must be one of lease, advisory"),
    )
    for options, words in cases:
        with pytest.raises(ConfigError, match=words) as refused:
            PostgresDriver(request_timeout=1.0, **options)
        assert "se-cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("host=x sslmode=verify_full", "sslmode of the dsn is none of the values"),
        ("host=x gssencmode=se-cret", "gssencmode of the dsn is none of the values"),
        ("host=x ssl_min_protocol_version=se-cret", "ssl_min_protocol_version of the dsn is none of the values"),
        ("host=x keepalives=maybe", "keepalives of the dsn must be a whole number"),
        ("host=x connect_timeout=se-cret", "connect_timeout of the dsn must be a whole number"),
        ("host=x port=abc", "port of the dsn must be a number from 1 to 65535"),
        ("host=x port=0", "port of the dsn must be a number"),
        ("host=x,y port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("service=nothere", 'definition of service "nothere" not found'),
    ],
)
def test_an_option_that_libpq_would_not_take(service: Service, dsn: str, words: str) -> None:
    """It is wrong settings before anything is asked of a server, whatever libpq would say and when."""
    service("host=x")
    assert words in refusal(dsn=dsn)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PGPASSWORD", HALF, "PGPASSWORD is not UTF-8"),
        ("PGUSER", HALF, "PGUSER is not UTF-8"),
        ("PGDATABASE", HALF, "PGDATABASE is not UTF-8"),
        ("PGPASSFILE", HALF, "PGPASSFILE is not UTF-8"),
        ("PGOPTIONS", HALF, "PGOPTIONS is not UTF-8"),
        ("PGSSLMODE", "se-cret", "PGSSLMODE is none of the values"),
        ("PGPORT", "se-cret", "PGPORT must be a number"),
        ("PGHOST", "bot:se-cret@db", "PGHOST has an @ in it"),
        ("PGSERVICE", "nothere", 'definition of service "nothere" not found'),
        ("PGSERVICEFILE", "/nowhere", 'service file "/nowhere" not found'),
    ],
)
def test_a_variable_that_libpq_would_not_take(
    monkeypatch: pytest.MonkeyPatch, service: Service, variable: str, value: str, words: str
) -> None:
    """It is named, and its value is not shown."""
    service("port=1")
    monkeypatch.setenv("PGSERVICE", "locks")
    service("dbname=x" if variable == "PGPORT" else "connect_timeout=1")
    monkeypatch.setenv(variable, value)
    assert words in refusal()


@pytest.mark.parametrize("name", ["password", "user", "dbname"])
def test_a_service_that_is_not_utf_8(service: Service, name: str) -> None:
    """It is told by its option's name."""
    service(f"host=x\n{name}={HALF}")
    assert f"{name} of the service is not UTF-8" in refusal(dsn="service=locks")


@pytest.mark.parametrize("bad", [HALF, "se-cret\0x"])
@pytest.mark.parametrize("name", ["dsn", "user", "password", "ca"])
def test_a_text_that_postgresql_cannot_be_told(name: str, bad: str) -> None:
    """It is refused when the driver is made, and not tried for ever."""
    assert f"{name} has a NUL in it, or a byte that is not UTF-8" in refusal(**{name: bad})


def test_what_a_service_says_is_known(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hosts are tried one by one and shown, and TLS is asked for on the way to another host, unless it says of TLS
    what libpq would not do by itself."""
    monkeypatch.setenv("PGHOST", "other")
    service("host=db1,db2\nport=6000\ndbname=locks\nuser=bot")
    access = PostgresAccess("service=locks")
    assert str(access) == "postgres db1:6000,db2:6000/locks"
    assert [(each["host"], each["port"], each["sslmode"]) for each in access.attempts] == [
        ("db1", "6000", "require"),
        ("db2", "6000", "require"),
    ]
    monkeypatch.setenv("PGSERVICE", "locks")
    assert str(PostgresAccess()) == str(access)
    service("host=db1\nsslmode=disable")
    assert "sslmode" not in PostgresAccess("service=locks").attempts[0]
    service("host=localhost")
    assert "sslmode" not in PostgresAccess("service=locks").attempts[0]
    service("host=bot:se-cret@db")
    assert "host of the service has an @ in it" in refusal(dsn="service=locks")


async def test_a_service_of_another_host_goes_by_tls(postgres_release: str, service: Service) -> None:
    """A server without TLS at a host of a service that is not this one is not spoken to."""
    with PostgresServer(release=postgres_release) as server:
        service(f"host=LOCALHOST\nport={server.port}\nuser=postgres\ndbname=postgres")
        async with driver_at("service=locks") as driver:
            with pytest.raises(BackendRefused, match=r"LOCALHOST.*does not support SSL"):
                await driver.read(["leader/x"])


async def test_variables_that_the_server_does_not_take(postgres_release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says to them is no outage; a server that is not there is one."""
    with PostgresServer(release=postgres_release) as server:
        for variable, value in (("PGOPTIONS", "-c nonsense=1"), ("PGTZ", "nowhere"), ("PGOPTIONS", "-x y")):
            with monkeypatch.context() as patch:
                patch.setenv(variable, value)
                async with driver_at(server.dsn) as driver:
                    with pytest.raises(BackendRefused):
                        await driver.read(["leader/x"])
        dsn = server.dsn
    async with driver_at(dsn) as driver:
        with pytest.raises(BackendUnavailable):
            await driver.read(["leader/x"])


@pytest.mark.skipif(sys.platform == "win32", reason="libpq looks at no modes there")
@pytest.mark.parametrize("by", ["options", "dsn", "variables"])
async def test_files_that_libpq_would_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """A key that others may read, one that is not the certificate's, one that is not there, a CA that is none: wrong
    settings when the driver is opened."""
    authority = Authority(tmp_path / "tls")
    cert, key = authority.issue("bot")
    _, other = authority.issue("other")
    key.chmod(0o600)
    other.chmod(0o600)

    def driver(**files: Path) -> PostgresDriver:
        names = {"ca": "sslrootcert", "cert": "sslcert", "key": "sslkey"}
        files = {"ca": authority.ca, "cert": cert, **files}
        if by == "options":
            return PostgresDriver("host=db", request_timeout=1.0, ca=files["ca"], cert=files["cert"], key=files["key"])
        if by == "variables":
            monkeypatch.setenv("PGSSLMODE", "verify-full")
            for name, path in files.items():
                monkeypatch.setenv(names[name].upper().join(("PG", "")), str(path))
            return PostgresDriver("host=db", request_timeout=1.0)
        pairs = " ".join(f"{names[name]}={path}" for name, path in files.items())
        return PostgresDriver(f"host=db sslmode=verify-full {pairs}", request_timeout=1.0)

    await driver(key=key).open()
    for wrong in ({"key": other}, {"key": tmp_path / "none"}, {"key": key, "ca": tmp_path / "none"}):
        with pytest.raises(ConfigError, match="cannot be used"):
            await driver(**wrong).open()
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="has the mode 0644: it must be 0600"):
        await driver(key=key).open()
    no_tls = f"host=/nowhere sslmode=verify-full sslrootcert={tmp_path / 'none'} sslcert={cert} sslkey={key}"
    await PostgresDriver(no_tls, request_timeout=1.0).open()


@pytest.mark.parametrize("command", [["status"], ["run", "--lock", "x", "--", "true"], ["doctor", "--no-telegram"]])
def test_a_password_that_is_not_utf_8_ends_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """In one line that names the variable, with the code of wrong settings."""
    (tmp_path / "c.yaml").write_text("backend: postgres\npostgres:\n  dsn: host=127.0.0.1 port=1\n")
    monkeypatch.setenv("PGPASSWORD", HALF)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    program = [sys.executable, "-m", "cluster_lock", command[0], "--config", str(tmp_path / "c.yaml"), *command[1:]]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 78, said
    assert "PGPASSWORD is not UTF-8" in said
    assert "se-cret" not in said
    assert "Traceback" not in said
