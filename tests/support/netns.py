"""Several hosts on one machine: network namespaces with a partition between any of them. Root on Linux only.

    with Network(3) as network:
        server = ConsulServer(host=network.hosts[0].address, wrapper=network.hosts[0].wrapper)
        network.partition([0], [1, 2])
        network.heal()

The test process itself reaches every host, from `network.own_address`.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cluster_lock.testing.servers import ServerMissing

_PREFIX = "clt"
_serial = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace: `wrapper` put before a command line runs the command there."""

    name: str
    address: str

    @property
    def wrapper(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def run(self, *command: str) -> str:
        """What a command prints in there; raises RuntimeError when it fails."""
        return _run(*self.wrapper, *command)


class Rules:
    """Rules of the hosts' firewalls. They hold until they are taken back, or the network is healed."""

    def __init__(self, rules: Iterable[tuple[Host, Sequence[str]]]) -> None:
        self._rules = list(rules)
        for host, rule in self._rules:
            host.run("iptables", "-A", *rule)

    def take_back(self) -> None:
        """These alone: what else was done to the hosts goes on."""
        for host, rule in self._rules:
            host.run("iptables", "-D", *rule)


class Network:
    """Hosts on one switch. It is a namespace too: docker's FORWARD DROP would block a bridge outside of one.

    Raises `ServerMissing` at entry where this machine cannot have namespaces.
    """

    def __init__(self, size: int) -> None:
        serial = next(_serial)
        self._mark = f"{_PREFIX}{os.getpid()}x{serial}"
        # 10.200-249.0-249.0/24: a net of its own for each process and each network in it.
        self._net = f"10.{200 + os.getpid() // 250 % 50}.{(os.getpid() + 7 * serial) % 250}"
        self.hosts = [Host(f"{self._mark}h{index}", f"{self._net}.{index + 1}") for index in range(size)]
        self.own_address = f"{self._net}.254"
        self._switch = f"{self._mark}sw"
        self._outside = f"{self._mark[-12:]}o"

    def __enter__(self) -> Self:
        why_not = _unavailable()
        if why_not:
            raise ServerMissing(why_not)
        _remove_stale()
        atexit.register(self._remove)
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        atexit.unregister(self._remove)

    def partition(self, side: Iterable[int], other: Collection[int]) -> Rules:
        """No packet passes between the hosts of one side and those of the other, both ways; nobody is told."""
        others = [self.hosts[index].address for index in other]
        return Rules(rule for index in side for rule in self._cut(index, others))

    def mute(self, side: Iterable[int], other: Collection[int]) -> Rules:
        """What the hosts of one side send does not reach those of the other; what those send does arrive."""
        return Rules(self._sent(index, peer, "DROP") for index in side for peer in other)

    def refuse(self, index: int, other: Iterable[int]) -> Rules:
        """What the host sends to those of the other side is answered with a reset."""
        reset = ("REJECT", "--reject-with", "tcp-reset")
        return Rules(self._sent(index, peer, *reset, more=("-p", "tcp")) for peer in other)

    def hold(self, index: int, port: int, other: int) -> Rules:
        """What the host sends to the other one from this port waits in its kernel."""
        return Rules([self._sent(index, other, "DROP", more=("-p", "tcp", "--sport", str(port)))])

    def lose(self, index: int, share: float) -> Rules:
        """Of the packets that reach the host, and of those that it sends, this share is lost."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}")
        rule = ("-p", "tcp", *chance, "-j", "DROP")
        return Rules((self.hosts[index], (chain, *rule)) for chain in ("INPUT", "OUTPUT"))

    def isolate(self, index: int) -> Rules:
        """Cut one host off from all hosts and from the test process."""
        everyone = [host.address for host in self.hosts if host is not self.hosts[index]]
        return Rules(self._cut(index, [*everyone, self.own_address]))

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        for host in self.hosts:
            host.run("iptables", "-F")

    def unplug(self, index: int) -> None:
        """Take the host's link down: its own end knows."""
        self.hosts[index].run("ip", "link", "set", "eth0", "down")

    def plug(self, index: int) -> None:
        """Bring the link back up."""
        self.hosts[index].run("ip", "link", "set", "eth0", "up")

    def _cut(self, index: int, peers: Iterable[str]) -> Iterator[tuple[Host, Sequence[str]]]:
        for peer in peers:
            yield self.hosts[index], ("INPUT", "-s", peer, "-j", "DROP")
            yield self.hosts[index], ("OUTPUT", "-d", peer, "-j", "DROP")

    def _sent(self, index: int, peer: int, *fate: str, more: Sequence[str] = ()) -> tuple[Host, Sequence[str]]:
        return self.hosts[index], ("OUTPUT", "-d", self.hosts[peer].address, *more, "-j", *fate)

    def _build(self) -> None:
        switch = Host(self._switch, "")
        _run("ip", "netns", "add", self._switch)
        switch.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        switch.run("ip", "link", "set", "br0", "up")
        for index, host in enumerate(self.hosts):
            _run("ip", "netns", "add", host.name)
            port = f"p{index}"
            switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            switch.run("ip", "link", "set", port, "master", "br0", "up")
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
            host.run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", self._outside, "type", "veth", "peer", "name", "pout", "netns", self._switch)
        switch.run("ip", "link", "set", "pout", "master", "br0", "up")
        _run("ip", "addr", "add", f"{self.own_address}/24", "dev", self._outside)
        _run("ip", "link", "set", self._outside, "up")

    # Removing the switch removes its ends of all cables, and with them the other ends.
    def _remove(self) -> None:
        for name in (self._switch, *(host.name for host in self.hosts)):
            _remove_namespace(name)


def _unavailable() -> str | None:
    if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            return f"{program} is not installed: run 'make servers' or 'scripts/install-servers net'"
    tried = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=300, check=False)
    return None if tried.returncode == 0 else f"ip netns does not work here: {tried.stderr.strip()}"


def _remove_stale() -> None:
    """Those of a test process that was killed, as it could not do it itself."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0] if line.split() else ""
        found = re.match(rf"{_PREFIX}(\d+)x", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            _remove_namespace(name)


def _remove_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=300, check=False)  # gone already is fine


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
