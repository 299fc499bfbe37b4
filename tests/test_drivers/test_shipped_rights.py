"""The rights that deploy/ gives to a bot and to an operator, on real servers: enough for each, none of the other's."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.aio import run, until
from support.backends import Backend
from support.company import write_config
from support.consul_lab import client

from cluster_lock.admin.step_down import ask_to_step_down
from cluster_lock.cli import main
from cluster_lock.driver import Driver
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.election import Election, Role, Term
from cluster_lock.errors import PermissionRefused
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.testing.servers.base import ServerFailed
from cluster_lock.values import STANDBY, Timing

DEPLOY = Path(__file__).parents[2] / "deploy"
PREFIX, LOCK, NODE = "cluster-lock/", "telegram/42", "cluster-lock"
TIMING = Timing(ttl=15, margin=3, stop_time=1, settle=0.2)

Connect = Callable[[], Driver]


@asynccontextmanager
async def bot(connect: Connect, instance: str) -> AsyncIterator[Election]:
    """An instance that stands by for the lock of its bot, or leads."""
    async with Session(connect(), instance=instance, timing=TIMING, guard=NoGuard()) as session:
        election = Election(session)
        leading = asyncio.create_task(election.lead(LOCK, Term.wait_step_down))
        try:
            yield election
        finally:
            election.stop()
            await leading


async def live(as_bot: Connect, as_operator: Connect) -> None:
    """All that a bot does: lead, stand by, be asked by an operator, hand over, take over, release."""

    async with bot(as_bot, "web-1") as one:
        await until(lambda: one.role(LOCK) is Role.LEADER)
        operator = Session(as_operator(), instance="operator", timing=TIMING, guard=NoGuard())
        async with bot(as_bot, "web-2") as two, operator:
            while two.role(LOCK) is not Role.LEADER:
                outcome = await ask_to_step_down(operator, LOCK, by="a test", timeout=20)
                assert outcome is not None
                assert outcome.declined is None or "nobody" in outcome.declined or "again in" in outcome.declined
        await until(lambda: one.role(LOCK) is Role.LEADER)


async def refused(driver: Driver, *names: str) -> None:
    """Nothing of these can be written."""
    lease = await driver.grant_lease("somebody", 30)
    for name in names:
        with pytest.raises(PermissionRefused):
            if name.startswith("leader/"):
                await driver.acquire(lease, name, b"mine")
            else:
                await driver.announce(lease, name, b"mine")
    await driver.revoke(lease)


async def only_its_own(as_bot: Connect, as_operator: Connect) -> None:
    """A bot writes neither another bot's keys nor a request; an operator writes nothing but requests."""
    others = ("leader/telegram/43", "leader/telegram/421", "invite/telegram/43", "reply/telegram/43", "standby/other-1")
    for connect, names in (
        (as_bot, (*others, f"request/{LOCK}")),
        (as_operator, (*others, f"leader/{LOCK}", f"reply/{LOCK}", "standby/web-1")),
    ):
        driver = connect()
        await driver.open()
        try:
            await refused(driver, *names)
        finally:
            await driver.close()


# -- Consul ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    with ConsulServer(dev=True, acl=True) as server:
        node = {"Node": NODE, "Address": "127.0.0.1", "NodeMeta": {"external-node": "true"}}
        server.request("PUT", "/v1/catalog/register", node)
        yield server


def consul_token(server: ConsulServer, policy: str) -> str:
    """As set-up-acl makes it."""
    rules = (DEPLOY / "consul" / policy).read_text()
    for word, value in {"BOT_ID": "42", "INSTANCES": "web-", "SESSION_NODE": NODE}.items():
        rules = rules.replace(word, value)
    return server.create_token(rules)


def at_consul(server: ConsulServer, token: str) -> Connect:
    return lambda: ConsulDriver([server.url], prefix=PREFIX, request_timeout=5.0, token=token, session_node=NODE)


@pytest.mark.consul
def test_consul_policies(consul: ConsulServer) -> None:
    """With the shipped policies a bot leads and hands over when an operator asks, and neither may do the other's."""
    tokens = [consul_token(consul, policy) for policy in ("bot.policy.hcl", "operator.policy.hcl")]
    one, other = (at_consul(consul, token) for token in tokens)
    run(live(one, other))
    run(only_its_own(one, other))


@pytest.mark.consul
@pytest.mark.parametrize("policy", ["bot.policy.hcl", "operator.policy.hcl"])
async def test_a_token_is_shown_its_own_session(consul: ConsulServer, policy: str) -> None:
    """The right to make a session is enough to ask each agent for it, by which clusters are told from each other."""
    urls = consul.url, consul.url.replace("127.0.0.1", "localhost")
    async with client(*urls, token=consul_token(consul, policy), session_node=NODE) as driver:
        await driver.grant_lease("a", 30)
        assert [node.problem for node in await driver.nodes()] == [None]


@pytest.mark.consul
async def test_a_dead_standby_of_another_bot_is_in_nobodys_way(consul: ConsulServer) -> None:
    """A bot's rights are enough to revoke a lease, though a dead standby of another bot has left its record."""
    root = at_consul(consul, consul.management_token or "")()
    mine = at_consul(consul, consul_token(consul, "bot.policy.hcl"))()
    await root.open()
    await mine.open()
    try:
        dead, key = await root.grant_lease("other-1", 10), f"{STANDBY}other-1.aaaa"
        await root.announce(dead, key, b"{}")
        consul.request("PUT", f"/v1/session/destroy/{dead.id}")
        lease = await mine.grant_lease("web-1", 10)
        await mine.revoke(lease)
        assert consul.request("GET", f"/v1/session/info/{lease.id}?consistent") == []
        assert (await root.read([key])).entries[key].record == b"{}"
    finally:
        await root.close()
        await mine.close()


@pytest.mark.consul
@pytest.mark.parametrize("policy", ["bot.policy.hcl", "operator.policy.hcl"])
def test_no_session_of_another_service_can_be_ended(consul: ConsulServer, policy: str) -> None:
    """A token of ours neither destroys nor makes a session anywhere but on the node that is for ours."""
    token = consul_token(consul, policy)
    theirs = consul.request("PUT", "/v1/session/create", {"Name": "billing", "TTL": "60s"})["ID"]
    for path, body in ((f"/v1/session/destroy/{theirs}", None), ("/v1/session/create", {"Name": "mine"})):
        with pytest.raises(ServerFailed, match="403"):
            consul.request("PUT", path, body, token=token)
    assert consul.request("GET", f"/v1/session/info/{theirs}")[0]["ID"] == theirs


@pytest.mark.consul
def test_a_doctor_with_the_rights_of_a_bot(
    consul: ConsulServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the doctor a bot's rights are enough, without the one to ask for a step-down, and he leaves nothing behind."""
    token = consul_token(consul, "bot.policy.hcl")
    section = {"url": consul.url, "token": token, "session_node": NODE}
    config = write_config(tmp_path / "c.yaml", Backend("consul", section, consul), PREFIX)
    assert main(["doctor", "--no-telegram", "--config", str(config)]) == 0
    assert "`step-down` is for those who may write request/" in capsys.readouterr().out
    assert not [key for key in consul.request("GET", "/v1/kv/?keys") or [] if "doctor" in key]


# -- etcd --------------------------------------------------------------------------------------------------------------

WITH_PASSWORDS = """#!/bin/sh
# etcdctl, for users who have no certificate.
if [ "$1 $2 ${4:-}" = "user add --no-password" ]; then set -- user add "$3:secret"; fi
exec "$REAL_ETCDCTL" "$@"
"""


class Password:
    """A secret as the driver takes it."""

    def get_secret_value(self) -> str:
        return "secret"


@pytest.mark.etcd
def test_etcd_roles(etcd_release: str, tmp_path: Path) -> None:
    """With the roles that set-up-roles makes a bot leads and hands over when an operator asks, and neither may do the
    other's."""
    with EtcdServer(release=etcd_release) as server:
        wrapper = tmp_path / "etcdctl"
        wrapper.write_text(WITH_PASSWORDS)
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        environ = os.environ | {
            "ETCDCTL": str(wrapper),
            "REAL_ETCDCTL": str(server._ctl),
            "ETCDCTL_API": "3",
            "ETCDCTL_ENDPOINTS": server.endpoint,
            "BOT_ID": "42",
            "INSTANCES": "web-",
        }
        subprocess.run([str(DEPLOY / "etcd" / "set-up-roles")], env=environ, check=True, timeout=300)
        environ["ETCDCTL_USER"] = "root:secret"
        for command in (["add", "operator:secret"], ["grant-role", "operator", "cluster-lock-operator"]):
            subprocess.run([str(server._ctl), "user", *command], env=environ, check=True, timeout=300)

        def at_etcd(user: str) -> Connect:
            return lambda: EtcdDriver(
                [server.endpoint], prefix=PREFIX, request_timeout=5.0, user=user, password=Password()
            )

        run(live(at_etcd("cluster-lock"), at_etcd("operator")))
        run(only_its_own(at_etcd("cluster-lock"), at_etcd("operator")))
