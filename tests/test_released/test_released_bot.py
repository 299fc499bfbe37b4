"""The bot that the laboratory begins a rolling upgrade with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.released import TESTS, VERSION, library
from support.aio import PATIENCE

pytestmark = pytest.mark.slow

SCRIPT = """
import runpy, sys
import cluster_lock
print(cluster_lock.__version__)
sys.argv = ["", "start", "--help"]
try:
    runpy.run_module("support.released_bot", run_name="__main__")
finally:
    diary = sys.modules["support.diary_bot"]
    print(diary.TellingSession.__module__, diary.lock_name.__module__, diary.Leadership.__module__)
"""


def test_its_diary_finds_all_that_it_uses(tmp_path: Path) -> None:
    """In the released version, and what it finds is of that."""
    path = os.pathsep.join([str(library(tmp_path)), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == VERSION
    assert said[-1].split() == [
        "cluster_lock.aiogram.http_session",
        "cluster_lock.aiogram.poller",
        "cluster_lock.leadership",
    ]
