"""The wall clock of one process is moved while it runs, and no other clock of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import wall_clock
from support.aio import PATIENCE
from support.nursery import Nursery

TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys, threading, time
from support import wall_clock
if len(sys.argv) > 1:
    wall_clock.follow(sys.argv[1])
waits = threading.Event()
for line in sys.stdin:
    waits.wait(0.01)
    time.sleep(0.01)
    print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    sys.stdout.flush()
"""

pytestmark = pytest.mark.skipif(wall_clock.library() is None, reason="needs a C compiler")


@contextmanager
def program(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), **environ},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str]) -> list[float]:
    """Its clocks: the wall's, the monotonic one, the boot's."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return [float(word) for word in process.stdout.readline().split()]


@pytest.mark.parametrize("forked", [False, True], ids=["started with it", "follows it later"])
def test_it_jumps_and_no_other_clock_does(tmp_path: Path, forked: bool) -> None:
    """Forward, back, and to the true time again, seen by a process that waits between."""
    file = tmp_path / "clock"
    wall_clock.put(file, 0)
    environ = wall_clock.environment(file)
    arguments = []
    if forked:
        arguments.append(environ.pop(wall_clock.FILE))
    with program(*arguments, **environ) as process:
        before = read(process)
        for seconds in (3600, -3600, 0):
            wall_clock.put(file, seconds)
            after = read(process)
            wall, monotonic, boot = (now - then for now, then in zip(after, before, strict=True))
            assert wall - boot == pytest.approx(seconds, abs=0.1)
            assert monotonic == pytest.approx(boot, abs=0.1)


def test_each_has_its_own(tmp_path: Path) -> None:
    """One that follows another file has another time."""
    files = [tmp_path / "one", tmp_path / "other"]
    for file in files:
        wall_clock.put(file, 0)
    with program(**wall_clock.environment(files[0])) as one, program(**wall_clock.environment(files[1])) as other:
        wall_clock.put(files[0], 3600)
        assert read(one)[0] - read(other)[0] == pytest.approx(3600, abs=10)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """is told, and no clock is moved."""
    environ = wall_clock.environment(tmp_path / "none")
    del environ[wall_clock.FILE]
    with program(str(tmp_path / "none"), **environ) as process:
        assert process.wait(30) == 1


def test_what_the_nursery_starts_has_its_own_clock(tmp_path: Path) -> None:
    """And the nursery has the true one."""
    script, file, log = tmp_path / "told.py", tmp_path / "clock", tmp_path / "log"
    script.write_text("import time\nprint(time.time())\n")
    wall_clock.put(file, 3600)
    with Nursery(tmp_path, preload=wall_clock.library()) as nursery:
        for environ in (wall_clock.environment(file), {}):
            assert nursery.start([str(script)], environ, log=log).wait(PATIENCE) == 0
    moved, true = (float(line) for line in log.read_text().split())
    assert moved - true == pytest.approx(3600, abs=60)
