"""What systemd hears, on real sockets."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.aio import PATIENCE, run
from support.health import LOCK, TIMING, TRUSTED, leader_board, poller, standby_board

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.health import Board, Notifier
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason, Origin

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd is Linux's")


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    async def line(self, wanted: str) -> list[str]:
        """The first datagram with this line, as lines."""
        async with asyncio.timeout(PATIENCE):
            while True:
                lines = (await asyncio.get_running_loop().sock_recv(self.socket, 4096)).decode().split("\n")
                if any(line.startswith(wanted) for line in lines):
                    return lines


@asynccontextmanager
async def told(board: Board, address: str, **environ: str) -> AsyncIterator[Manager]:
    """A manager that is told what the board says."""
    manager = Manager(address)
    notifier = Notifier({"NOTIFY_SOCKET": address, **environ})
    following = asyncio.ensure_future(notifier.follow(board))
    try:
        yield manager
    finally:
        await end([following])
        manager.socket.close()


@pytest.mark.parametrize("abstract", [False, True])
async def test_a_life_is_told(abstract: bool, tmp_path: Path) -> None:
    """READY comes when the process may lead, STATUS with each transition, STOPPING at the end; on both kinds of
    sockets."""
    if abstract and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    address = f"@cluster-lock-{secrets.token_hex(4)}" if abstract else str(tmp_path / "notify")
    board = Board("web-1")
    async with told(board, address) as manager:
        first = await manager.line("STATUS=")
        assert first == ["STATUS=starting: there is no lease"]
        board.lease_granted(TIMING, clock.now() + TRUSTED)
        board.standing_by(LOCK)
        lines = await manager.line("READY=1")
        assert f"STATUS=standby for {LOCK}" in lines
        board.term_began(LOCK, 17, Origin.HANDED_OVER)
        await manager.line(f"STATUS=leader of {LOCK}, term 17")
        board.term_ended(LOCK, EndReason("stepped down", EndCode.STEP_DOWN), Ending.RELEASED)
        await manager.line("STATUS=standby")
        board.stop("SIGTERM")
        assert "STATUS=stopping: it is stopping: SIGTERM; standby for telegram/42" in await manager.line("STOPPING=1")


async def test_the_watchdog_is_fed_by_the_loop(tmp_path: Path) -> None:
    """WATCHDOG comes while the loop runs and the board lives, and not while only a restart would help."""
    board = leader_board()
    async with told(board, str(tmp_path / "n"), WATCHDOG_USEC="150000", WATCHDOG_PID=str(os.getpid())) as manager:
        for _ in range(3):
            await manager.line("WATCHDOG=1")
        board.pollers.tell([poller(deaf=True)])
        await manager.line("STATUS=stuck")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(manager.line("WATCHDOG=1"), 0.6)
        board.pollers.tell([poller()])
        await manager.line("WATCHDOG=1")


def test_what_is_not_for_us_is_left_alone() -> None:
    """Without a manager nothing is sent; a watchdog of another process is none; no child inherits the variables."""
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    assert Notifier(environ).watchdog is None
    assert environ == {"HOME": "/"}
    assert Notifier({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000"}).watchdog == 2.0
    for nothing in ({}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "relative"}):
        notifier = Notifier(dict(nothing))
        assert notifier.send("READY=1") is False
        run(notifier.follow(standby_board()))


def test_a_manager_that_is_away_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that nobody reads is one warning, however often we try, and no failure."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert [notifier.send("WATCHDOG=1") for _ in range(5)] == [False] * 5
    assert len(caplog.records) == 1


async def test_ready_is_repeated_until_it_arrives(tmp_path: Path) -> None:
    """READY that could not be sent is sent again when the manager is there."""
    address = str(tmp_path / "late")
    following = asyncio.ensure_future(Notifier({"NOTIFY_SOCKET": address}).follow(standby_board()))
    await asyncio.sleep(0)
    manager = Manager(address)
    try:
        assert "READY=1" in await manager.line("READY=1")
    finally:
        await end([following])
        manager.socket.close()
