"""The rights that are shipped are enough, and none of them is more than is needed: one fewer is refused, by name.

`cluster-lock run` asks for what a leader needs, in a container of the bot, and imports no aiogram.
"""

from __future__ import annotations

import re
import secrets

import pytest
from support.aio import run
from support.deployment import Deployment

pytestmark = pytest.mark.docker

REFUSED, HELD_ELSEWHERE = 77, 75

only_consul = pytest.mark.parametrize("deployment", ["consul"], indirect=True)
only_etcd = pytest.mark.parametrize("deployment", ["etcd"], indirect=True)


def led(deployment: Deployment, code: int, lock: str | None = None, **variables: str) -> str:
    """What a run under a lock says, the bot's own if none is given; it must end with `code`."""
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    lock = lock or f"telegram/{deployment.bot_id}"
    command = ["run", "--no-wait", "--lock", lock, "--", "python", "-c", "print('led')"]
    said = deployment.compose(
        "run", "--rm", "-T", "--no-deps", *given, "--entrypoint", "cluster-lock", "bot-1", *command, code=code
    )
    assert ("led" in said.split()) == (code == 0), said
    return said


def test_shipped_rights_are_enough(deployment: Deployment) -> None:
    """With the bots' own token or certificate the bot's lock is asked for, which another instance holds; the one of
    another bot is refused."""

    async def one_leads() -> None:
        async with deployment.watched() as watched:
            await watched.settled()

    run(one_leads())
    led(deployment, HELD_ELSEWHERE)
    led(deployment, REFUSED, "telegram/43")


def consul_token(deployment: Deployment, rules: str) -> str:
    """The path, in a bot's container, of a file with a token that has these rights."""
    name = f"test-{secrets.token_hex(4)}"
    # A folder that every container of the bots has.
    file = deployment.folder / "diaries" / name
    file.write_text(rules)
    tool = ["run", "--rm", "-T", "--no-deps", "--volume", f"{file}:/rules.hcl:ro", "consul", "acl"]
    deployment.compose(*tool, "policy", "create", "-name", name, "-rules", "@/rules.hcl")
    made = deployment.compose(*tool, "token", "create", "-policy-name", name)
    found = re.search(r"^SecretID:\s+(\S+)$", made, re.MULTILINE)
    assert found, made
    file.write_text(found[1])
    return f"/diaries/{file.name}"


@only_consul
@pytest.mark.parametrize(
    ("key", "less", "missing"),
    [
        ('key "cluster-lock/leader/LOCK"', "deny", 'key_prefix "cluster-lock/" { policy = "write" }'),
        ('key "cluster-lock/leader/LOCK"', "read", 'key_prefix "cluster-lock/" { policy = "write" }'),
        ('session "cluster-lock"', "deny", 'session "cluster-lock" { policy = "write" }'),
        ('session "cluster-lock"', "read", 'session "cluster-lock" { policy = "write" }'),
    ],
    ids=["no lock", "lock read-only", "no sessions", "sessions read-only"],
)
def test_one_right_fewer_on_consul(deployment: Deployment, key: str, less: str, missing: str) -> None:
    """Without one line of the shipped policy a bot ends with code 77 and names what its policy lacks."""
    lock = f"run/{secrets.token_hex(4)}"
    shipped = deployment.policy("bot.policy.hcl").replace(f"telegram/{deployment.bot_id}", lock)
    rule = f"{key.replace('LOCK', lock)} {{\n  policy = "
    assert f'{rule}"write"' in shipped
    for rules, code in ((shipped, 0), (shipped.replace(f'{rule}"write"', f'{rule}"{less}"'), REFUSED)):
        said = led(deployment, code, lock, CLUSTER_LOCK_CONSUL__TOKEN_FILE=consul_token(deployment, rules))
        assert code == 0 or missing in said


@only_consul
def test_shipped_token_may_nothing_else_on_consul(deployment: Deployment) -> None:
    """The bots' token opens no key beside its own, no request, no ACL and no agent."""
    token = f"{deployment.folder}/secrets/consul_token:/run/token:ro"
    tool = ["run", "--rm", "-T", "--no-deps", "--volume", token, "--env", "CONSUL_HTTP_TOKEN_FILE=/run/token", "consul"]
    keys = (
        "elsewhere",
        "cluster-lockpick",
        "cluster-lock/leader/telegram/43",
        f"cluster-lock/request/telegram/{deployment.bot_id}",
    )
    for command in (*(["kv", "put", key, "x"] for key in keys), ["leave"]):
        assert "Permission denied" in deployment.compose(*tool, *command, code=1), command


@only_etcd
@pytest.mark.parametrize("right", ["read", "write"])
def test_one_right_fewer_on_etcd(deployment: Deployment, right: str) -> None:
    """With half of the shipped role's right a bot ends with code 77 and names the permission."""
    name = f"test-{secrets.token_hex(4)}"
    tool = ["run", "--rm", "-T", "--no-deps", "etcdctl"]
    deployment.compose(*tool, "role", "add", name)
    deployment.compose(*tool, "role", "grant-permission", name, right, "cluster-lock/", "--prefix")
    deployment.compose(*tool, "user", "add", f"{name}:secret")
    deployment.compose(*tool, "user", "grant-role", name, name)
    said = led(deployment, REFUSED, CLUSTER_LOCK_ETCD__USER=name, CLUSTER_LOCK_ETCD__PASSWORD="secret")
    assert "needs readwrite cluster-lock/ --prefix" in said


@only_etcd
def test_shipped_user_may_nothing_else_on_etcd(deployment: Deployment) -> None:
    """The bots' certificate opens no key beside its own, no request and no user list, and none at all opens nothing."""
    as_bot = ["--volume", f"{deployment.folder}/certs:/certs:ro"]
    as_bot += ["--env", "ETCDCTL_CERT=/certs/bot.crt", "--env", "ETCDCTL_KEY=/certs/bot.key"]
    tool = ["run", "--rm", "-T", "--no-deps"]
    for command in (
        ["put", "elsewhere", "x"],
        ["put", "cluster-lock/leader/telegram/43", "x"],
        ["put", f"cluster-lock/request/telegram/{deployment.bot_id}", "x"],
        ["get", "cluster-lockpick"],
        ["user", "list"],
    ):
        assert "permission denied" in deployment.compose(*tool, *as_bot, "etcdctl", *command, code=1), command
    nobody = ["--env", "ETCDCTL_CERT=", "--env", "ETCDCTL_KEY="]
    deployment.compose(*tool, *nobody, "etcdctl", "--dial-timeout=2s", "get", "cluster-lock/", "--prefix", code=1)
