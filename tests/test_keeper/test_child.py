"""A command under the init, as its keeper ends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.aio import LONGEST
from support.killed_init import TIMES

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
