"""A command under the init, as its keeper ends it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.aio import LONGEST, PATIENCE, until
from support.killed_init import TIMES
from support.mutants import module
from support.running import kill, processes, runs

pytestmark = pytest.mark.process

TESTS = Path(__file__).parents[1]


def test_an_init_that_dies_while_it_is_killed() -> None:
    """The exit status is that of a killed command also when its init dies in the moment in which it is killed."""
    told = subprocess.run(
        [sys.executable, "-m", "support.killed_init"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert told.stderr == ""
    assert told.stdout.split() == ["137"] * TIMES


@pytest.mark.parametrize("who", ["upper", "keeper", "upper-stopped"])
async def test_who_is_killed_while_it_kills(tmp_path: Path, who: str) -> None:
    """Nothing is left when the keeper, or its upper init, is killed just when it ends what is below it: it leaves that
    to the lower init, for a moment, and kills that one last."""
    said = tmp_path / "said"
    with said.open("w") as told:  # a pipe would be open as long as anything is left
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, *module("support.first_blow"), *who.split("-")),
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdout=told,
        )
    async with asyncio.timeout(PATIENCE):
        await program.wait()
    pids = map(int, said.read_text().splitlines()[0].split())
    found = processes(pids)
    try:
        await until(lambda: not any(map(runs, found)), timeout=10)
        assert ("blow" in said.read_text()) is ("stopped" in who)
    finally:
        kill(found)
