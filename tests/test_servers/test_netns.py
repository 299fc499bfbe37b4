"""Namespaces behave like hosts on a network that can be cut."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.netns import Network

from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.testing.servers.base import Cluster, wait_for

pytestmark = pytest.mark.netns


class _Etcds(Cluster[EtcdServer]):
    def leads(self, node: EtcdServer) -> bool:
        return node.is_leader


def names() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=300, check=True).stdout


def reaches(network: Network, source: int, target: int) -> bool:
    """Whether a TCP connection attempt is answered, with a refusal or a connection, within 300 ms."""
    probe = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 1), timeout=0.3)\n"
        "except ConnectionRefusedError: print('answered')\n"
        "except OSError: pass"
    )
    return "answered" in network.hosts[source].run(sys.executable, "-c", probe, network.hosts[target].address)


def test_partition_cuts_both_ways_and_heals() -> None:
    """Hosts on two sides of a partition do not reach each other, those of one side do, and healing undoes it."""
    with Network(3) as network:
        assert reaches(network, 0, 1)
        network.partition([0], [1, 2])
        assert not reaches(network, 0, 1)
        assert not reaches(network, 2, 0)
        assert reaches(network, 1, 2)
        network.heal()
        assert reaches(network, 2, 0)
        network.unplug(2)
        assert not reaches(network, 0, 2)
        network.plug(2)
        assert reaches(network, 0, 2)


def test_what_is_taken_back_is_one_thing_alone() -> None:
    """Of two things that were done to the wires of a host the one that is taken back is over, and the other goes on."""
    with Network(3) as network:
        cut = network.partition([0], [1])
        mute = network.mute([0], [1, 2])
        cut.take_back()
        assert reaches(network, 1, 2)
        assert not reaches(network, 0, 2)
        mute.take_back()
        assert reaches(network, 0, 1)
        assert reaches(network, 0, 2)


def test_nothing_is_left_behind() -> None:
    """After the block its namespaces are gone, also when the block failed."""
    before = names()
    network = Network(2)
    with pytest.raises(RuntimeError), network:
        network.hosts[0].run("false")
    assert not set(names().split()) - set(before.split())


def test_namespaces_of_a_killed_test_are_removed_by_the_next() -> None:
    """What a killed test run could not clean up is gone when the next network is made."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from support.netns import Network\n"
        "network = Network(1).__enter__(); print(network.hosts[0].name, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, os.path.dirname(os.path.dirname(__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdout
        name = killed.stdout.readline().strip()
        killed.kill()
    assert name in names()
    with Network(1):
        assert name not in names()


@pytest.mark.etcd
def test_etcd_majority_goes_on_without_the_isolated_leader(etcd_release: str) -> None:
    """A leader that is cut off from its two followers loses its office to one of them, which takes writes."""
    with Network(3) as network:
        nodes = [
            EtcdServer(release=etcd_release, name=f"n{index}", host=host.address, wrapper=host.wrapper)
            for index, host in enumerate(network.hosts)
        ]
        for node in nodes:
            node.members = {each.name: each.peer_url for each in nodes}
        with _Etcds(nodes) as cluster:
            first = cluster.leader
            network.isolate(first)
            second = cluster.wait_leader(other_than=first)
            assert nodes[second].ctl("put", "key", "value").strip() == "OK"
            network.heal()
            wait_for(lambda: "value" in nodes[first].ctl("get", "key") or None, 10, "the old leader did not catch up")


@pytest.mark.consul
def test_consul_on_a_host_of_its_own_is_reached_from_the_test() -> None:
    """A server inside of a namespace answers the test process until its host is isolated."""
    with Network(1) as network:
        host = network.hosts[0]
        with ConsulServer(dev=True, host=host.address, wrapper=host.wrapper) as server:
            assert server.request("PUT", "/v1/kv/key", "value") is True
            network.isolate(0)
            with pytest.raises(OSError, match="timed out"):
                server.request("GET", "/v1/status/leader", timeout=0.3)
            network.heal()
            assert server.value("key") == b"value"
