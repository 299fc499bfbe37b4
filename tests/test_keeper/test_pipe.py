"""The worker's end of the pipe from its keeper."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from typing import Any

import pytest
from support.aio import PATIENCE
from support.keepers import FAST

from cluster_lock import clock
from cluster_lock.keeper.link import PipeLink
from cluster_lock.keeper.worker import PipeLockSource
from cluster_lock.lease.guard import GuardWatch, NoGuard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a keeper needs POSIX")


class Moved(NoGuard):
    """Remembers the deadline that it was moved to last. `moved` is set when it was."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.moved = threading.Event()

    def watch(self, deadline: float, what: str = "") -> GuardWatch:
        return self

    def move(self, deadline: float) -> None:
        self.deadline = deadline
        self.moved.set()

    def done(self) -> None:
        return None


async def test_a_blocked_loop_delays_no_renewal() -> None:
    """While the work blocks the loop, a renewal still moves the deadline at which the process would be ended."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    keeper, loop, guard = PipeLink(lambda line: theirs.sendall(line)), asyncio.get_running_loop(), Moved()

    async def give(name: str) -> dict[str, Any]:
        return {"token": 1, "origin": "released", "inherited": {}, "deadline": clock.now() + 1}

    def read() -> None:
        for line in theirs.recv(4096).splitlines():
            keeper.received(line)

    keeper.verbs["take"] = give
    with ours, theirs:
        async with PipeLockSource(ours, FAST, guard=guard) as contest:
            loop.add_reader(theirs, read)
            await contest.take("x")
            loop.remove_reader(theirs)
            renewed = clock.now() + 3
            keeper.tell("lease", deadline=renewed, now=clock.now(), clock=clock.NAME)
            assert guard.moved.wait(PATIENCE)  # nothing else happens in this loop
            assert guard.deadline == renewed
