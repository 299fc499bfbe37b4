"""A program under `cluster-lock run` that leads a lock of its own: its keeper holds that too."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from support.keepers import KeeperProcess, Keepers, gone, keepers

from cluster_lock.values import LEADER

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

PROGRAM = (sys.executable, "-m", "support.visiting_program")
LOCK = "telegram/1"


async def visited(them: Keepers, *command: str, health: str = "off") -> KeeperProcess:
    return await them.start("a", *command, lock="x", health=health)


async def is_free(them: Keepers, lock: str) -> bool:
    async with them.session("operator") as session:
        entry = (await session.driver.read([LEADER + lock])).entries[LEADER + lock]
        return entry.lease is None


async def test_its_lock_is_under_the_keepers_lease(tmp_path: Path) -> None:
    """Both locks stand under one lease; at a stop the program's is given away first, when its work has ended, and then
    that of the command; the program knows where its keeper shows how it is."""
    async with keepers(tmp_path) as them:
        keeper = await visited(them, *PROGRAM, "works", health="127.0.0.1:0")
        await keeper.says("leading 2 ")
        assert "page http://127.0.0.1:" in keeper.output
        assert await them.lease(LOCK) == await them.lease("x")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        order = [
            "ends: SIGTERM",
            "telegram/1: not leading any more, lock released",
            "done",
            "x: not leading any more",
        ]
        assert sorted(order, key=keeper.output.index) == order
        assert await is_free(them, LOCK)


async def test_a_program_that_crashes_below_a_shell(tmp_path: Path) -> None:
    """When the program that led is gone and the command goes on, all of the command is ended before its lock is free:
    what the program has started may still work."""
    async with keepers(tmp_path) as them:
        script = f"{' '.join(PROGRAM)} crashes & sleep 10; true"
        keeper = await visited(them, "sh", "-c", script)
        sleeping = await keeper.has_started("sleep")
        await keeper.says("killing the command: the program that led telegram/1 is gone")
        assert await keeper.ended() == 128 + signal.SIGKILL
        assert await gone(sleeping, 0.1) < 0.1
        assert await is_free(them, LOCK)


async def test_a_program_that_blocks(tmp_path: Path) -> None:
    """A program that leads, and whose loop gives no sign of life, is ended with its command."""
    async with keepers(tmp_path) as them:
        keeper = await visited(them, *PROGRAM, "blocks")
        await keeper.says("killing the command: its loop has given no sign of life for 1.5 s")
        assert await keeper.ended() == 128 + signal.SIGKILL


async def test_a_program_that_restarts_itself(tmp_path: Path) -> None:
    """A program that puts itself anew in its place (os.execv) leads again at once, with what the one before left."""
    async with keepers(tmp_path) as them:
        keeper = await visited(them, *PROGRAM, "restarts")
        await keeper.says("released {'by': 'the first'}")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0


async def test_a_program_that_has_not_got_the_pipe(tmp_path: Path) -> None:
    """A program whose parent has closed the keeper's pipe, or put something else in its place, leads by itself."""
    async with keepers(tmp_path) as them:
        for close in ("3>&-", "3</dev/null"):
            keeper = await visited(them, "sh", "-c", f"exec {' '.join(PROGRAM)} works {close}")
            await keeper.says("no keeper")
            assert await keeper.ended() == 0
