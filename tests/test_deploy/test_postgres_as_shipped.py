"""deploy/postgres without containers: its scripts, configuration and rights, on the servers that they are for."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.aio import until
from support.leases import first_lease

from cluster_lock.config import Settings, driver_options, load
from cluster_lock.drivers.postgres import PostgresDriver
from cluster_lock.errors import NoLeaseYet
from cluster_lock.testing.servers import Server, find_tool
from cluster_lock.testing.servers.base import free_ports
from cluster_lock.testing.servers.postgres import as_user

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

RELEASE = "18"
LOCK = "leader/telegram/4242"
KNOWN = f"SELECT count(*) FROM cluster_lock.key WHERE name = '{LOCK}' AND lease IS NOT NULL"


class ShippedServer(Server):
    """A server of deploy/postgres/compose.yaml on loopback: its own script and files, with the ports of this host."""

    def __init__(self, shipped: Shipped, name: str, port: int) -> None:
        super().__init__(data_dir=shipped.folder / name)
        self.title = f"{name} as shipped"
        self.name, self.port, self.primary = name, port, "postgres-1"
        self._shipped = shipped
        self._tools = find_tool("postgres", "postgres", RELEASE).parent
        self.conf = self.data_dir / "conf"
        self.conf.mkdir()
        for file in ("postgresql.conf", "pg_hba.conf"):
            text = (shipped.home / file).read_text()
            (self.conf / file).write_text(text.replace("/etc/cluster-lock", str(self.conf)))
        # Beside them: the checkout may be where that user may not go.
        shutil.copy2(shipped.home / "start-server", self.conf)
        certs = {"ca.crt": "ca.crt", f"{name}.crt": "node.crt", f"{name}.key": "node.key"}
        for file, inside in certs.items():
            shutil.copy2(shipped.certs / file, self.conf / inside)
        if os.geteuid() == 0:
            for path in (self.data_dir, self.conf / "node.key"):
                shutil.chown(path, shipped.user)

    def _command(self) -> list[str]:
        at = f"host=127.0.0.1 port={self._shipped.ports[self.primary]}"
        variables = {
            "PATH": f"{self._tools}:{os.environ['PATH']}",
            "NAME": self.name,
            "PRIMARY": self.primary,
            "PRIMARY_AT": at,
            "PGDATA": self.data_dir / "data",
            "CONF": self.conf,
        }
        here = (f"-cport={self.port}", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={self.data_dir}")
        given = [f"{name}={value}" for name, value in variables.items()]
        script = self.conf / "start-server"
        return [*self._shipped.as_user, "/usr/bin/env", "-C", "/", *given, "sh", str(script), *here]

    def _is_ready(self) -> bool:
        asked = [str(self._tools / "pg_isready"), "-q", "-h", str(self.data_dir), "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def stop(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGINT)  # SIGTERM would wait for clients
        super().stop()


class Shipped:
    """Both servers, not yet started, with certificates of make-certs."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.home = checkout / "deploy/postgres"
        self.folder = folder
        self.certs = folder / "certs"
        self.user = "nobody"
        user = pwd.getpwnam(self.user) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        owner = f"{user.pw_uid}:{user.pw_gid}"
        self.as_user = as_user(self.user, find_tool("postgres", "postgres", RELEASE))
        own = f"{os.geteuid()}:{os.getegid()}"
        subprocess.run(
            [checkout / "deploy/make-certs", self.certs, "postgres"],
            env={**os.environ, "SERVER_UID": owner, "BOT_UID": own},
            check=True,
            capture_output=True,
        )
        ports = free_ports()
        self.ports = {"postgres-1": next(ports), "postgres-2": next(ports)}
        self.servers = {name: ShippedServer(self, name, port) for name, port in self.ports.items()}

    def tool(self, program: str, *arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """One of PostgreSQL's programs with the variables of the service `psql`."""
        command = [str(find_tool("postgres", program, RELEASE)), *arguments]
        environ = {**os.environ, **self.operator, **variables}
        return subprocess.run(command, input=text, env=environ, capture_output=True, text=True, check=False, timeout=60)

    @property
    def operator(self) -> dict[str, str]:
        service: dict[str, Any] = yaml.safe_load((self.home / "compose.yaml").read_text())["services"]["psql"]
        variables = {
            name: value.replace("/run/operator", str(self.certs)) for name, value in service["environment"].items()
        }
        assert variables["PGHOST"] == ",".join(self.ports)
        return variables | {"PGHOST": "127.0.0.1,127.0.0.1", "PGPORT": ",".join(map(str, self.ports.values()))}

    def sql(self, text: str, **variables: str) -> str:
        """What the operator is answered. Raises AssertionError with psql's complaint."""
        done = self.tool("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", text=text, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def at(self, name: str) -> dict[str, str]:
        """For `sql`: at this server, whatever it is."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports[name]), "PGTARGETSESSIONATTRS": "any"}

    def set_up_roles(self) -> None:
        psql = str(find_tool("postgres", "psql", RELEASE))
        init_db = shlex.join([sys.executable, "-m", "cluster_lock", "init-db", "--print"])
        subprocess.run(
            [self.home / "set-up-roles"],
            env={**os.environ, **self.operator, "PSQL": psql, "INIT_DB": init_db},
            check=True,
            timeout=120,
        )

    def settings(self) -> Settings:
        """The bots', with the places of this host."""
        text = (self.home / "bot.yaml").read_text()
        (self.folder / "telegram_token").write_text("4242:a-token-for-nobody")
        for there, here in (
            ("host=postgres-1,postgres-2", f"host=127.0.0.1,127.0.0.1 port={self.operator['PGPORT']}"),
            ("/etc/cluster-lock", str(self.certs)),
            ("/run/secrets", str(self.folder)),
        ):
            assert there in text
            text = text.replace(there, here)
        (self.folder / "bot.yaml").write_text(text)
        return load(self.folder / "bot.yaml")


@pytest.fixture
def shipped(checkout: Path) -> Iterator[Shipped]:
    # Not under pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="cluster-lock-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        shipped = Shipped(checkout, Path(folder))
        for server in shipped.servers.values():
            stack.callback(server.close)
        shipped.servers["postgres-1"].start()
        shipped.set_up_roles()
        shipped.set_up_roles()  # once more changes nothing
        shipped.servers["postgres-2"].start()
        yield shipped


async def test_the_runbook(shipped: Shipped) -> None:
    """The bots' own settings lead on the primary. After its loss the replica is promoted as the README says, and the
    leader goes on there; the old server comes back as the replica of the new one; a backup has the locks."""
    settings = shipped.settings()
    one, two = shipped.servers["postgres-1"], shipped.servers["postgres-2"]
    driver = PostgresDriver(**driver_options(settings))
    await driver.open()
    try:
        lease = await first_lease(driver, 12.0)
        grant = await driver.acquire(lease, LOCK, b"{}")
        assert grant is not None
        await until(lambda: shipped.sql(KNOWN, **shipped.at("postgres-2")) == "1")

        one.kill()
        assert shipped.sql("SELECT pg_promote()", **shipped.at("postgres-2")) == "t"
        await driver.renew(lease)
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("other", settings.timing.ttl)

        shutil.rmtree(one.data_dir / "data")
        one.primary = two.primary = "postgres-2"
        one.start()
        await until(lambda: shipped.sql(KNOWN, **shipped.at("postgres-1")) == "1")
        assert shipped.sql("SELECT pg_is_in_recovery()", **shipped.at("postgres-1")) == "t"
        assert shipped.sql("SELECT pg_is_in_recovery()") == "f"
    finally:
        await driver.close()

    backup = shipped.tool("pg_dump")
    assert backup.returncode == 0, backup.stderr
    shipped.sql("DROP DATABASE locks WITH (FORCE)", PGDATABASE="postgres")
    shipped.sql("CREATE DATABASE locks", PGDATABASE="postgres")
    # psql, unlike the driver, asks no other host where this one has no such database yet.
    which, first = "SELECT oid FROM pg_database WHERE datname = 'locks'", shipped.at("postgres-1")
    new = shipped.sql(which, PGDATABASE="postgres")
    await until(lambda: shipped.sql(which, PGDATABASE="postgres", **first) == new)
    shipped.sql(backup.stdout)
    shipped.set_up_roles()
    assert shipped.sql(KNOWN) == "1"


def test_the_bots_role_may_nothing_else(shipped: Shipped) -> None:
    """The bots' certificate opens the database of the locks alone, and there it makes and drops nothing; without TLS or
    a certificate nobody comes in, and no certificate is a role that it does not name."""
    bot = {
        "PGUSER": "cluster-lock",
        "PGSSLCERT": str(shipped.certs / "bot.crt"),
        "PGSSLKEY": str(shipped.certs / "bot.key"),
    }
    assert shipped.sql("SELECT count(*) FROM cluster_lock.key", **bot) == "0"
    for text in (
        "CREATE TABLE public.x ()",
        "CREATE SCHEMA x",
        "DROP TABLE cluster_lock.key",
        "TRUNCATE cluster_lock.key",
        "SELECT setval('cluster_lock.token', 1)",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_promote()",
        "CREATE ROLE x",
    ):
        done = shipped.tool("psql", "-X", "-v", "ON_ERROR_STOP=1", text=text, **bot)
        assert done.returncode != 0, text
        assert "permission denied" in done.stderr or "must be owner" in done.stderr, done.stderr
    refused = {
        "no pg_hba.conf entry": [{**bot, "PGDATABASE": "postgres"}, {**bot, "PGSSLMODE": "disable"}],
        "certificate authentication failed": [{**bot, "PGUSER": "root"}],
        "requires a valid client certificate": [{**bot, "PGSSLCERT": "/nowhere", "PGSSLKEY": "/nowhere"}],
    }
    for words, ways in refused.items():
        for way in ways:
            done = shipped.tool("psql", "-X", text="SELECT 1", **way)
            assert words in done.stderr, done.stderr
