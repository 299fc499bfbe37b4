"""The wall clock of single processes, which a test moves while they run. It needs a C compiler."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
FILE = "TEST_WALL_CLOCK"
_CELL = struct.Struct("l")


@cache
def library() -> Path | None:
    """What such processes load first (LD_PRELOAD); None where nothing can be compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="wall-clock-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Path(folder, "wall_clock.so")
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, SOURCE], capture_output=True, check=False)
    return made if done.returncode == 0 else None


def put(file: Path, seconds: int) -> None:
    """From now on the clock of those that follow this file is so far ahead of the true one."""
    file.touch()
    with file.open("r+b", buffering=0) as cell:
        cell.write(_CELL.pack(seconds))


def environment(file: Path) -> dict[str, str]:
    """For a program that is to follow it."""
    return {"LD_PRELOAD": str(library()), FILE: str(file)}


def follow(file: str) -> None:
    """The same for this very process, which has loaded it already."""
    if ctypes.CDLL(None).follow_wall_clock(file.encode()) != 0:
        raise OSError(f"the wall clock cannot follow {file}")
