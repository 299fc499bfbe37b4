"""The shipped single-node Compose files come up healthy, and the shipped rights are enough and no more."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.docker import Docker

from cluster_lock.testing.servers.base import free_ports

pytestmark = pytest.mark.docker


def consul_request(port: int, method: str, path: str, body: Any = None, token: str = "") -> Any:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    request.add_header("X-Consul-Token", token)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_consul_policy_is_enough_for_a_lock_and_no_more(docker: Docker, checkout: Path) -> None:
    """A token with the shipped policy makes a session and locks a key under the prefix, and touches nothing else."""
    folder = checkout / "deploy/consul"
    port = next(free_ports())
    with docker.compose_up(folder / "compose.yaml", {"CONSUL_PORT": str(port)}) as compose:
        assert docker.health(compose, "consul") == "healthy"
        management = consul_request(port, "PUT", "/v1/acl/bootstrap")["SecretID"]
        rules = (folder / "cluster-lock.policy.hcl").read_text()
        consul_request(port, "PUT", "/v1/acl/policy", {"Name": "cluster-lock", "Rules": rules}, management)
        made = consul_request(port, "PUT", "/v1/acl/token", {"Policies": [{"Name": "cluster-lock"}]}, management)
        token = made["SecretID"]

        session = consul_request(port, "PUT", "/v1/session/create", {"TTL": "10s", "Checks": []}, token)["ID"]
        lock = f"/v1/kv/cluster-lock/leader/test?acquire={session}"
        assert consul_request(port, "PUT", lock, b"record", token) is True
        assert (
            consul_request(port, "GET", "/v1/kv/cluster-lock/?recurse&consistent", token=token)[0]["Session"] == session
        )
        assert consul_request(port, "PUT", f"/v1/session/renew/{session}", b"", token)[0]["ID"] == session
        assert consul_request(port, "PUT", f"/v1/session/destroy/{session}", b"", token) is True
        for method, path in [
            ("PUT", "/v1/kv/elsewhere"),
            ("PUT", "/v1/kv/cluster-lockpick"),
            ("PUT", "/v1/acl/token"),
            ("PUT", "/v1/agent/leave"),
        ]:
            with pytest.raises(urllib.error.HTTPError, match="403"):
                consul_request(port, method, path, {}, token)


def test_etcd_role_is_enough_for_a_lock_and_no_more(docker: Docker, checkout: Path) -> None:
    """The user that the shipped script makes writes under the prefix with a lease, and touches nothing else."""
    folder = checkout / "deploy/etcd"
    with docker.compose_up(folder / "compose.yaml", {"ETCD_PORT": str(next(free_ports()))}) as compose:
        ctl = [*compose, "exec", "-T", "etcd", "etcdctl"]
        passwords = {"ETCD_ROOT_PASSWORD": "root-pass", "CLUSTER_LOCK_PASSWORD": "lock-pass"}
        docker.run(str(folder / "set-up-roles"), variables={"ETCDCTL": " ".join(ctl), **passwords})

        user = "--user=cluster-lock:lock-pass"
        lease = docker.run(*ctl, user, "lease", "grant", "30").split()[1]
        docker.run(*ctl, user, "put", "cluster-lock/leader/test", "record", f"--lease={lease}")
        assert "record" in docker.run(*ctl, user, "get", "--prefix", "cluster-lock/")
        docker.run(*ctl, user, "lease", "keep-alive", "--once", lease)
        docker.run(*ctl, user, "lease", "revoke", lease)
        for command in (["put", "elsewhere", "x"], ["get", "cluster-lockpick"], ["user", "list"]):
            with pytest.raises(AssertionError, match="permission denied"):
                docker.run(*ctl, user, *command)
        with pytest.raises(AssertionError, match="user name is empty"):
            docker.run(*ctl, "get", "cluster-lock/leader/test")
        # The health check has no password and must go on without one.
        assert docker.health(compose, "etcd") == "healthy"
        docker.run(*compose, "restart", "--timeout", "1", "etcd")
        docker.run(*compose, "up", "--detach", "--wait")
        assert docker.health(compose, "etcd") == "healthy"
