"""The rights that are shipped are enough, and none of them is more than is needed: one fewer is refused, by name.

`cluster-lock run` asks for what a leader needs, in a container of the bot, and imports no aiogram.
"""

from __future__ import annotations

import re
import secrets

import pytest
from support.deployment import Deployment

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

KEYS = 'key_prefix "cluster-lock/" {\n  policy = "write"\n}'
SESSIONS = 'session_prefix "" {\n  policy = "write"\n}'
REFUSED = 77

only_consul = pytest.mark.parametrize("deployment", ["consul"], indirect=True)
only_etcd = pytest.mark.parametrize("deployment", ["etcd"], indirect=True)


def led(deployment: Deployment, code: int, **variables: str) -> str:
    """What a run under a lock of its own says; it must end with `code`."""
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    lock = f"run/{secrets.token_hex(4)}"
    command = ["run", "--no-wait", "--lock", lock, "--", "python", "-c", "print('led')"]
    said = deployment.compose(
        "run", "--rm", "-T", "--no-deps", *given, "--entrypoint", "cluster-lock", "bot-1", *command, code=code
    )
    assert ("led" in said.split()) == (code == 0), said
    return said


def test_shipped_rights_are_enough(deployment: Deployment) -> None:
    """With the bots' own token or certificate a lock is taken and given back."""
    led(deployment, 0)


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
    ("less", "missing"),
    [
        ((KEYS, ""), 'key_prefix "cluster-lock/" { policy = "write" }'),
        ((KEYS, KEYS.replace("write", "read")), 'key_prefix "cluster-lock/" { policy = "write" }'),
        ((SESSIONS, ""), 'session_prefix "" { policy = "write" }'),
        ((SESSIONS, SESSIONS.replace("write", "read")), 'session_prefix "" { policy = "write" }'),
    ],
    ids=["no keys", "keys read-only", "no sessions", "sessions read-only"],
)
def test_one_right_fewer_on_consul(deployment: Deployment, less: tuple[str, str], missing: str) -> None:
    """Without one line of the shipped policy a bot ends with code 77 and names that line."""
    shipped = (deployment.home / "cluster-lock.policy.hcl").read_text()
    assert less[0] in shipped
    token = consul_token(deployment, shipped.replace(*less))
    # As compose.yaml has it, whichever node the tests before have set.
    variables = {"CLUSTER_LOCK_CONSUL__SESSION_NODE": "", "CLUSTER_LOCK_CONSUL__TOKEN_FILE": token}
    assert missing in led(deployment, REFUSED, **variables)


@only_consul
def test_shipped_token_may_nothing_else_on_consul(deployment: Deployment) -> None:
    """The bots' token opens no key beside the prefix, no ACL and no agent."""
    token = f"{deployment.folder}/secrets/consul_token:/run/token:ro"
    tool = ["run", "--rm", "-T", "--no-deps", "--volume", token, "--env", "CONSUL_HTTP_TOKEN_FILE=/run/token", "consul"]
    for command in (["kv", "put", "elsewhere", "x"], ["kv", "put", "cluster-lockpick", "x"], ["leave"]):
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
    """The bots' certificate opens no key beside the prefix and no user list, and none at all opens nothing."""
    as_bot = ["--volume", f"{deployment.folder}/certs:/certs:ro"]
    as_bot += ["--env", "ETCDCTL_CERT=/certs/bot.crt", "--env", "ETCDCTL_KEY=/certs/bot.key"]
    tool = ["run", "--rm", "-T", "--no-deps"]
    for command in (["put", "elsewhere", "x"], ["get", "cluster-lockpick"], ["user", "list"]):
        assert "permission denied" in deployment.compose(*tool, *as_bot, "etcdctl", *command, code=1), command
    nobody = ["--env", "ETCDCTL_CERT=", "--env", "ETCDCTL_KEY="]
    deployment.compose(*tool, *nobody, "etcdctl", "--dial-timeout=2s", "get", "cluster-lock/", "--prefix", code=1)
