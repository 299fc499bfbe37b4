"""What systemd wants to hear of a unit with Type=notify: sd_notify(3) is one datagram, and needs no library."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager

from cluster_lock import clock
from cluster_lock.aio import end

from .beside import beside
from .board import Board
from .verdict import status, why_not_alive, why_not_ready

log = logging.getLogger("cluster_lock.health")

EVERY = 1.0
"""Seconds between two looks at the board while nothing changes."""


class Notifier:
    """Tells the service manager, if there is one. Takes its variables out of the environment, so that no child thinks
    that it is the unit. `follow` says READY, STATUS, WATCHDOG and STOPPING by itself."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # "@name" is Linux's abstract namespace; "vsock:" is for whole machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else None
        ours = not pid or pid == str(os.getpid())
        self.watchdog: float | None = int(watchdog) / 1e6 if watchdog.isdecimal() and int(watchdog) and ours else None
        """Seconds within which systemd wants a sign of life; None: it does not."""
        self._said: set[str] = set()
        self._failed = False
        self._fed = float("-inf")

    def send(self, *lines: str) -> bool:
        """Send these assignments in one datagram ("READY=1"). Never waits, never fails: False if it was not sent."""
        if self._address is None or sys.platform == "win32":
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd is not reached at NOTIFY_SOCKET: %s", error.strerror)
            self._failed = True
            return False
        self._failed = False
        return True

    async def follow(self, board: Board) -> None:
        """Tell what the board says, until cancelled. As it runs on the loop, its WATCHDOG is the loop's own sign of
        life; and none is sent while the board says that only a restart helps."""
        if self._address is None:
            return
        while True:
            changed = board.changed
            self._tell(board)
            try:
                async with asyncio.timeout(min(EVERY, self.watchdog / 3) if self.watchdog else EVERY):
                    await changed.wait()
            except TimeoutError:
                continue

    def _tell(self, board: Board) -> None:
        lines = []
        begun = board.worker.state == "ready" if board.worker is not None else bool(board.locks)
        if begun:
            lines += self._once("READY=1")
        if board.stopping is not None:
            lines += self._once("STOPPING=1")
        lines += self._once(f"STATUS={status_line(board)}")
        if self.watchdog and clock.now() - self._fed >= self.watchdog / 3 - 0.01 and not why_not_alive(board):
            self._fed = clock.now()
            lines.append("WATCHDOG=1")
        if lines and not self.send(*lines):
            self._said.difference_update(lines)

    def _once(self, line: str) -> list[str]:
        """The line, unless it is what was said last of its kind."""
        kind = line.partition("=")[0] + "="
        if line in self._said:
            return []
        self._said = {said for said in self._said if not said.startswith(kind)} | {line}
        return [line]


def status_line(board: Board) -> str:
    """One line for `systemctl status`."""
    parts = []
    for lock in board.locks.values():
        if lock.term is not None:
            parts.append(f"leader of {lock.name}, term {lock.term.term}")
        elif lock.role == "standby":
            leader = board.peers.leader(lock.name)
            parts.append(f"standby for {lock.name}" + (f", led by {leader['instance']}" if leader else ""))
    said = status(board)
    if said != "running":
        parts.insert(0, ": ".join([said, *(why_not_alive(board) or why_not_ready(board))[:1]]))
    return " ".join("; ".join(parts).split()) or said


@asynccontextmanager
async def following(board: Board) -> AsyncIterator[None]:
    """Tell systemd, if it is there, what `board` says while the block runs."""
    task = beside(Notifier().follow(board))
    try:
        yield
    finally:
        await end([task])
