"""What every server here can do: start, tell when it is ready, be stopped, killed, paused, restarted."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from cluster_lock import clock

from .children import spawn

READY_WITHIN = 30.0
_STOP_WITHIN = 10.0
_POLL = 0.02
_RESERVED = 64
"""Ports: longer ago a port was given to a server that has it or that has gone."""
_reserved: deque[int] = deque()
# Below the kernel's range for outgoing connections: a port of a stopped server must still be free at its restart.
_PORTS = range(20_000, 32_000)


class ServerFailed(Exception):
    """A server ended, or did not become ready in time. The text carries the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """PEM files. With a `client_cert`, the server refuses clients that have none signed by `ca`."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path | None = None
    client_key: Path | None = None


class Server(ABC):
    """One server as a child process. Subclasses say what to run and what ready means.

    `data_dir` survives restarts; without one a temporary folder is used and removed by `close()`. `wrapper` is put
    before the command line (`ip netns exec NAME`). Use it as a context manager: started at entry, closed at exit.
    """

    title = "server"

    def __init__(self, *, data_dir: Path | None = None, wrapper: Sequence[str] = ()) -> None:
        self._own_folder = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="cluster-lock-")) if data_dir is None else data_dir
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.data_dir / "server.log"
        self._wrapper = [_absolute(wrapper[0]), *wrapper[1:]] if wrapper else []
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """One look, at most a second long: would a client's request be answered?"""

    def _became_ready(self) -> None:  # noqa: B027, most servers need no more than to run
        """Called after each start that succeeded, for what is set up through the running server."""

    # -- life ------------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process and return at once."""
        if self.running:
            return
        with self.log_path.open("ab") as log:
            self._process = spawn([*self._wrapper, *self._command()], log)

    def wait_ready(self, at_most: float = READY_WITHIN) -> None:
        """Return when a client can work with it; raises `ServerFailed` after `at_most` seconds or if it ended."""
        end = clock.now() + at_most
        while True:
            ready = self._is_ready()
            if not self.running:
                raise ServerFailed(f"{self} ended while it started; the end of its log:\n{self.log_tail()}")
            if ready:
                break
            if clock.now() > end:
                raise ServerFailed(f"{self} was not ready within {at_most:g} s; the end of its log:\n{self.log_tail()}")
            time.sleep(_POLL)
        self._became_ready()

    def start(self, *, ready_within: float = READY_WITHIN) -> Self:
        """Start it and wait until it is ready."""
        self.launch()
        try:
            self.wait_ready(ready_within)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s. Its data stays."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.resume()  # a paused one would not hear the next signal
        process.terminate()
        try:
            process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone: the host of this server died."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(_STOP_WITHIN)

    def pause(self) -> None:
        """SIGSTOP, and wait until it stands: it accepts connections and answers nothing."""
        if sys.platform == "win32":
            raise ServerFailed("a server cannot be paused on Windows")
        os.kill(self.pid, signal.SIGSTOP)
        if sys.platform == "linux":
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT; harmless for one that is not paused."""
        if sys.platform != "win32":
            os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, kill: bool = False, ready_within: float = READY_WITHIN) -> None:
        """Stop (or kill) and start again on the same ports with the same data; returns when it is ready."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start(ready_within=ready_within)

    def close(self) -> None:
        """End it: gently if its data stays, else at once, and remove its temporary folder."""
        if self._own_folder:
            self.kill()  # an etcd that is asked tries for 5 s to hand its leadership over
            shutil.rmtree(self.data_dir, ignore_errors=True)
        else:
            self.stop()

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Raises `ServerFailed` when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"{self} does not run")
        return self._process.pid

    def log_tail(self, lines: int = 20) -> str:
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __str__(self) -> str:
        return self.title

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


S = TypeVar("S", bound=Server)
T = TypeVar("T")


class Cluster(ABC, Generic[S]):
    """Several servers that form one; `nodes` are the servers, to be killed, paused and restarted one by one."""

    def __init__(self, nodes: Sequence[S]) -> None:
        self.nodes = tuple(nodes)

    def start(self, *, ready_within: float = READY_WITHIN) -> Self:
        for node in self.nodes:
            node.launch()
        try:
            for node in self.nodes:
                node.wait_ready(ready_within)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        # The signal to all of them first: a node that loses its quorum waits for it before it ends.
        for node in self.nodes:
            if node.running:
                node.resume()
                os.kill(node.pid, signal.SIGTERM)
        for node in self.nodes:
            node.stop()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    @abstractmethod
    def leads(self, node: S) -> bool:
        """Whether this node says that it is the leader of the cluster."""

    @property
    def leader(self) -> int:
        """The index in `nodes` of the leader; raises `ServerFailed` when there is none within 30 s."""
        return self.wait_leader()

    def wait_leader(self, *, other_than: int | None = None, at_most: float = READY_WITHIN) -> int:
        """Wait until a running node leads (another than the given one) and return its index."""

        def found() -> int | None:
            for index, node in enumerate(self.nodes):
                if index != other_than and node.running and self.leads(node):
                    return index
            return None

        return wait_for(found, at_most, "the cluster has no leader")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_for(look: Callable[[], T | None], at_most: float, complaint: str) -> T:
    """Look until the answer is not None; raises `ServerFailed` with the complaint after `at_most` seconds."""
    end = clock.now() + at_most
    while (answer := look()) is None:
        if clock.now() > end:
            raise ServerFailed(f"{complaint} after {at_most:g} s")
        time.sleep(_POLL)
    return answer


def free_ports(host: str = "127.0.0.1") -> Iterator[int]:
    """Ports that nothing listens on at this moment, each process beginning elsewhere.

    No other process that asks here gets one of the latest: a server takes its time to bind its port, and may stop and
    start again. In one process a port does not come again soon.
    """
    for port in _ports_of(os.getpid()):
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        yield port


@cache
def _ports_of(pid: int) -> Iterator[int]:
    """One endless walk over all ports for the process, 50 of them away from where the next process begins."""
    begin = pid * 50 % len(_PORTS)
    return itertools.cycle([*_PORTS[begin:], *_PORTS[:begin]])


def _reserve(port: int) -> bool:
    """Is it ours? Said by a socket that has its name, which goes with our process; on Linux only."""
    if sys.platform != "linux":
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
        try:
            named.bind(f"\0cluster-lock-port-{port}")
        except OSError:
            return False
        _reserved.append(named.detach())
    if len(_reserved) > _RESERVED:
        os.close(_reserved.popleft())
    return True


def _absolute(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServerFailed(f"no program named {program!r} to start a server with")
    return found
