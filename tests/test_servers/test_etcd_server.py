"""The etcd helper does on the real server what it says."""

from __future__ import annotations

import pytest

from cluster_lock.testing.servers import EtcdCluster, EtcdServer, ServerFailed, ServerTLS

pytestmark = pytest.mark.etcd


def test_release_is_the_one_asked_for(etcd_server: EtcdServer, etcd_release: str) -> None:
    """A test that asks for 3.4 runs on 3.4, not on whatever is newest."""
    assert f"etcdctl version: {etcd_release}." in etcd_server.ctl("version")


def test_fast_timing_grants_a_ttl_of_one_second(etcd_server: EtcdServer) -> None:
    """With fast timing the server promises 1 s, not the 2 s that its default election timeout makes of it."""
    assert "TTL(1s)" in etcd_server.ctl("lease", "grant", "1")


def test_data_survives_a_kill(etcd_release: str) -> None:
    """A value written before SIGKILL is there after the restart, at the same address."""
    with EtcdServer(release=etcd_release) as server:
        endpoint = server.endpoint
        server.ctl("put", "key", "value")
        server.restart(kill=True)
        assert server.endpoint == endpoint
        assert server.ctl("get", "key", "--print-value-only").strip() == "value"


def test_paused_server_answers_nothing_until_resumed(etcd_release: str) -> None:
    """SIGSTOP silences the server, SIGCONT brings it back with its data."""
    with EtcdServer(release=etcd_release) as server:
        server.pause()
        with pytest.raises(ServerFailed):
            server.ctl("get", "key", "--command-timeout=300ms")
        server.resume()
        assert server.ctl("put", "key", "value").strip() == "OK"


def test_auth_limits_the_user_to_the_prefix(etcd_release: str) -> None:
    """The lock's user reads and writes under the prefix and is refused outside of it."""
    with EtcdServer(release=etcd_release, auth=True) as server:
        credentials = f"--user={server.username}:{server.password}"
        assert server.ctl("put", "cluster-lock/key", "value", credentials, user=None).strip() == "OK"
        with pytest.raises(ServerFailed, match="permission denied"):
            server.ctl("put", "elsewhere", "value", credentials, user=None)


def test_tls_server_demands_a_client_certificate(etcd_release: str, tls: ServerTLS) -> None:
    """With TLS a client that shows its certificate is served, and one without is not."""
    with EtcdServer(release=etcd_release, tls=tls) as server:
        assert server.endpoint.startswith("https://")
        assert server.ctl("put", "key", "value").strip() == "OK"
        server.tls = ServerTLS(tls.ca, tls.cert, tls.key)
        with pytest.raises(ServerFailed):
            server.ctl("put", "key", "value", "--command-timeout=1s")


def test_cluster_elects_another_leader(etcd_release: str) -> None:
    """When its leader is killed a cluster of three elects another one and takes writes."""
    with EtcdCluster(3, release=etcd_release) as cluster:
        first = cluster.leader
        cluster.nodes[first].kill()
        second = cluster.wait_leader(other_than=first)
        assert cluster.nodes[second].ctl("put", "key", "value").strip() == "OK"
        assert cluster.nodes[first].start().running
