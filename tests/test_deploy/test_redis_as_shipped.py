"""deploy/redis without containers: its scripts, configuration and rights, on the servers that they are for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.aio import until
from support.leases import first_lease

from cluster_lock.config import Settings, driver_options, load
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import BackendUnavailable, NoLeaseYet
from cluster_lock.testing.servers import Server, find_tool
from cluster_lock.testing.servers.base import free_ports

pytestmark = [pytest.mark.redis, pytest.mark.slow]

LOCK = "leader/telegram/4242"
NUMBERS = (1, 2, 3)


class ShippedServer(Server):
    """A Redis server or a Sentinel of deploy/redis/compose.yaml on loopback: its own script and files, with a port of
    this host."""

    def __init__(self, shipped: Shipped, kind: str, number: int) -> None:
        super().__init__(data_dir=shipped.folder / f"{kind}-{number}")
        self.title = f"{kind}-{number} as shipped"
        self.kind, self.port = kind, shipped.ports[kind, number]
        self._shipped = shipped
        self.conf = self.data_dir / "conf"
        (self.data_dir / "data").mkdir()
        self.conf.mkdir()
        for source, name in (
            (shipped.home / f"{kind}.conf", f"{kind}.conf"),
            (shipped.secrets / "users.acl", "users.acl"),
            (shipped.certs / "ca.crt", "ca.crt"),
            (shipped.certs / f"redis-{number}.crt", "node.crt"),
            (shipped.certs / f"redis-{number}.key", "node.key"),
        ):
            shutil.copy2(source, self.conf / name)

    def _command(self) -> list[str]:
        user = "sentinel" if self.kind == "sentinel" else "replica"
        variables = {
            "PATH": f"{self._shipped.tools}:{os.environ['PATH']}",
            "NAME": "127.0.0.1",
            "PORT": self.port,
            "PRIMARY": f"127.0.0.1:{self._shipped.ports['redis', 1]}",
            "CONF": self.conf,
            "DATA": self.data_dir / "data",
            "PASSWORD": self._shipped.secrets / f"redis_{user}",
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        return ["/usr/bin/env", *given, "sh", str(self._shipped.home / f"start-{self.kind}"), "--bind", "127.0.0.1"]

    def _is_ready(self) -> bool:
        return "NOAUTH" in (said := self._shipped.cli(self.port, "PING", user=None)) or said == "PONG"


class Shipped:
    """All servers, not yet started, with certificates of make-certs and users of make-users."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.home, self.folder = checkout / "deploy/redis", folder
        self.certs, self.secrets = folder / "certs", folder / "secrets"
        self.tools = find_tool("redis", "redis-server").parent
        own = f"{os.geteuid()}:{os.getegid()}"
        environ = {**os.environ, "SERVER_UID": own, "BOT_UID": own}
        for script, *arguments in (
            (checkout / "deploy/make-certs", str(self.certs), "redis"),
            (self.home / "make-users", str(self.secrets)),
        ):
            subprocess.run([str(script), *map(str, arguments)], env=environ, check=True, capture_output=True)
        ports = free_ports()
        self.ports = {(kind, number): next(ports) for kind in ("redis", "sentinel") for number in NUMBERS}
        self.servers = {place: ShippedServer(self, *place) for place in self.ports}

    def cli(self, port: int, *command: str, user: str | None = "operator", cert: str | None = "operator") -> str:
        """What redis-cli prints; errors too."""
        own = ("--cert", f"{self.certs}/{cert}.crt", "--key", f"{self.certs}/{cert}.key") if cert else ()
        name = ("--user", user) if user else ()
        secret = {"REDISCLI_AUTH": (self.secrets / f"redis_{user}").read_text().strip()} if user else {}
        done = subprocess.run(
            [
                str(find_tool("redis", "redis-cli")),
                *("-p", str(port), "--tls", "--cacert", str(self.certs / "ca.crt"), *own, *name, *command),
            ],
            env={**os.environ, **secret},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return (done.stdout + done.stderr).strip()

    def role(self, number: int) -> str:
        return self.cli(self.ports["redis", number], "ROLE").partition("\n")[0]

    def settings(self) -> Settings:
        """The bots', with the places of this host."""
        text = (self.home / "bot.yaml").read_text()
        (self.secrets / "telegram_token").write_text("4242:a-token-for-nobody")
        changes = {f"sentinel-{number}:26379": f"127.0.0.1:{self.ports['sentinel', number]}" for number in NUMBERS}
        for there, here in {**changes, "/etc/cluster-lock": str(self.certs), "/run/secrets": str(self.secrets)}.items():
            assert there in text
            text = text.replace(there, here)
        (self.folder / "bot.yaml").write_text(text)
        return load(self.folder / "bot.yaml")


@pytest.fixture
def shipped(checkout: Path, tmp_path: Path) -> Iterator[Shipped]:
    shipped = Shipped(checkout, tmp_path)
    with ExitStack() as stack:
        for server in shipped.servers.values():
            stack.callback(server.close)
            server.start()
        yield shipped


async def test_the_runbook(shipped: Shipped) -> None:
    """The bots' own settings lead on the primary that the Sentinels tell. After its loss another one is chosen while
    the lease lasts, and the leader goes on there; nobody new gets a lock for a ttl. The old server comes back as a
    replica."""
    for number in NUMBERS:
        quorum = ("SENTINEL", "CKQUORUM", "locks")
        await until(lambda: shipped.cli(shipped.ports["sentinel", number], *quorum, user=None).startswith("OK 3"))  # noqa: B023
    settings = shipped.settings()
    driver = RedisDriver(**driver_options(settings))
    await driver.open()
    try:
        lease = await first_lease(driver, settings.timing.ttl)
        grant = await driver.acquire(lease, LOCK, b"{}")
        assert grant is not None
        shipped.servers["redis", 1].kill()

        async def renewed() -> bool:
            try:
                await driver.renew(lease)
            except BackendUnavailable:
                return False
            return True

        await until(renewed)
        assert (await driver.read([LOCK])).entries[LOCK].index == grant.index
        with pytest.raises(NoLeaseYet):
            await driver.grant_lease("other", settings.timing.ttl)
        assert sorted(shipped.role(number) for number in (2, 3)) == ["master", "slave"]
        shipped.servers["redis", 1].start()
        await until(lambda: shipped.role(1) == "slave")
    finally:
        await driver.close()


def test_who_may_what(shipped: Shipped) -> None:
    """The bots' user changes what stands under their prefix, and nothing else; nobody comes in without a certificate,
    and without a password nobody does anything."""
    port = shipped.ports["redis", 1]
    said = shipped.cli(port, "SET", "cluster-lock/x", "1", user="bot", cert="bot")
    assert said == "OK" or said.startswith("NOREPLICAS"), said  # a replica may not be there yet
    for command in (
        ("SET", "other/x", "1"),
        ("GET", "other/x"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "requirepass"),
        ("ACL", "LIST"),
        ("KEYS", "*"),
        ("REPLICAOF", "NO", "ONE"),
        ("PUBLISH", "other", "x"),
    ):
        assert shipped.cli(port, *command, user="bot", cert="bot").startswith("NOPERM"), command
    assert shipped.cli(port, "GET", "cluster-lock/x", user=None).startswith("NOAUTH")
    assert "PONG" not in shipped.cli(port, "PING", cert=None)
