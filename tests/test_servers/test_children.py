"""Servers never outlive the process that started them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cluster_lock.testing.servers import RedisServer, ServerFailed, ServerMissing, find_tool

pytestmark = pytest.mark.redis


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_server_dies_with_a_killed_parent() -> None:
    """SIGKILL of the test process, which runs no cleanup, takes its servers along."""
    find_tool("redis", "redis-server")
    script = (
        "import sys; from cluster_lock.testing.servers import RedisServer\n"
        "server = RedisServer().start(); print(server.pid, server.data_dir, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        server = psutil.Process(int(pid))
        parent.kill()
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    Path(folder, "server.log").unlink()
    Path(folder).rmdir()


def test_server_outlives_the_thread_that_started_it() -> None:
    """A server started in a worker thread goes on when that thread ends (the kernel's death signal goes by thread)."""
    server = RedisServer()
    worker = threading.Thread(target=server.start)
    worker.start()
    worker.join(timeout=10)
    try:
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(server.pid).wait(timeout=0.3)
    finally:
        server.close()
    assert not server.running
    assert not server.data_dir.exists()


def test_server_that_cannot_start_says_why() -> None:
    """The error of a server that ended at its start carries the end of its log."""
    with (
        RedisServer() as first,
        pytest.raises(ServerFailed, match="Address already in use"),
        RedisServer(port=first.port),
    ):
        pass


def test_missing_program_names_the_command_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a server is not installed the error is one sentence with the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissing, match=r"^nosuch is not installed: run 'make servers' or 'scripts/install-ser"):
        find_tool("consul", "nosuch")
