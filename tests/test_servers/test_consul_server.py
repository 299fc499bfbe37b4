"""The Consul helper does on the real server what it says."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

import pytest

from cluster_lock.testing.servers import ConsulCluster, ConsulServer, ServerFailed, ServerTLS

pytestmark = pytest.mark.consul


def test_fast_timing_takes_a_session_of_one_second(consul_server: ConsulServer) -> None:
    """With fast timing a session of 1 s is made as soon as the server counts as ready."""
    assert consul_server.request("PUT", "/v1/session/create", {"TTL": "1s"})["ID"]


def test_defaults_refuse_less_than_ten_seconds() -> None:
    """Without fast timing the server has Consul's own floor of 10 s."""
    with ConsulServer(dev=True, fast=False) as server, pytest.raises(ServerFailed, match="must be between"):
        server.request("PUT", "/v1/session/create", {"TTL": "1s"})


def test_data_survives_a_kill() -> None:
    """A value written before SIGKILL is there after the restart, at the same address."""
    with ConsulServer() as server:
        url = server.url
        server.request("PUT", "/v1/kv/key", "value")
        server.restart(kill=True)
        assert server.url == url
        assert server.value("key") == b"value"


def test_acl_denies_by_default() -> None:
    """A token made for one prefix writes there and is refused elsewhere; no token is refused everywhere."""
    with ConsulServer(dev=True, acl=True) as server:
        token = server.create_token('key_prefix "cluster-lock/" { policy = "write" }')
        assert server.request("PUT", "/v1/kv/cluster-lock/key", "value", token=token) is True
        with pytest.raises(ServerFailed, match="403"):
            server.request("PUT", "/v1/kv/elsewhere", "value", token=token)
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(f"{server.url}/v1/kv/cluster-lock/key", timeout=5)
        refused.value.close()


def test_tls_server_demands_a_client_certificate(tls: ServerTLS) -> None:
    """Over https a client that shows its certificate is served, and one without is not."""
    assert tls.client_cert
    with ConsulServer(dev=True, tls=tls) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(tls.ca))
        with pytest.raises(OSError, match=r"bad certificate|certificate required"):
            urllib.request.urlopen(f"{server.url}/v1/status/leader", timeout=5, context=context).read()
        context.load_cert_chain(str(tls.client_cert), str(tls.client_key))
        with urllib.request.urlopen(f"{server.url}/v1/status/leader", timeout=5, context=context) as answer:
            assert answer.status == 200


def test_cluster_elects_another_leader() -> None:
    """When its leader is killed a cluster of three elects another one and takes writes."""
    with ConsulCluster(3) as cluster:
        first = cluster.leader
        cluster.nodes[first].kill()
        second = cluster.wait_leader(other_than=first)
        assert cluster.nodes[second].request("PUT", "/v1/kv/key", "value") is True
        assert cluster.nodes[first].start().running
