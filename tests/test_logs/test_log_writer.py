"""Anybody who logs waits for no reader: a full pipe costs lines, which are counted, and never the lease."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

import pytest
from support.mutants import module

from cluster_lock import clock
from cluster_lock.host.log_writer import LAST_WORDS, MOST, PATIENCE, LogWriter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes as on POSIX")


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Both ends of a pipe that nobody reads yet."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own, that nobody else hears."""
    made = logging.Logger("of this test", logging.INFO)  # noqa: LOG001 - with no parents
    yield made
    for handler in list(made.handlers):
        made.removeHandler(handler)
        handler.close()


def read(reading: int, until: str) -> list[str]:
    """The lines of a pipe up to the first one that has `until` in it."""
    raw = b""
    while until.encode() not in raw or not raw.endswith(b"\n"):
        raw += os.read(reading, 65536)
    return raw.decode().splitlines()


def test_a_line_is_out_when_it_is_logged(pipe: tuple[int, TextIO], log: logging.Logger) -> None:
    """While somebody reads, or there is room, a line is in the pipe before the call returns."""
    reading, stream = pipe
    log.addHandler(LogWriter(stream))
    os.set_blocking(reading, False)
    for number in range(100):
        log.info("line %d", number)
        assert os.read(reading, 100) == b"line %d\n" % number


def test_nobody_waits_for_a_reader(pipe: tuple[int, TextIO], log: logging.Logger) -> None:
    """With nobody at the other end a thousand times what a pipe takes is logged in no time; anybody who reads later
    finds the first lines whole and in their order, then how many are missing, and then what came after."""
    reading, stream = pipe
    log.addHandler(LogWriter(stream))
    count, size = 5000, 1000
    began = clock.now()
    for number in range(count):
        log.info("%d %s", number, "x" * size)
    assert clock.now() - began < count * PATIENCE / 10, "lines waited"
    lines = read(reading, "were dropped")
    log.info("after it")
    lines += read(reading, "after it")
    numbers = [int(line.split()[0]) for line in lines if line.endswith("x")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= MOST
    (dropped,) = re.findall(r"^(\d+) lines of the log were dropped", "\n".join(lines), re.MULTILINE)
    assert len(numbers) + int(dropped) == count
    assert lines[-1] == "after it"


def test_a_reader_that_is_gone_costs_nothing(pipe: tuple[int, TextIO], log: logging.Logger) -> None:
    """After the reader has ended lines are dropped, and nothing is raised."""
    reading, stream = pipe
    log.addHandler(LogWriter(stream))
    other, new = os.pipe()
    os.dup2(other, reading)  # the fixture closes the number; the pipe that we write to has no reader
    os.close(other)
    os.close(new)
    for _ in range(3):
        log.info("to nobody")


def test_a_line_that_cannot_be_made_shows_no_arguments(pipe: tuple[int, TextIO], log: logging.Logger) -> None:
    """Arguments that do not fit, or that raise when they are shown, are told by their place alone, and the next line
    is written."""

    class Loud:
        def __str__(self) -> str:
            raise ValueError("hunter2")

    reading, stream = pipe
    log.addHandler(LogWriter(stream))
    log.info("%s and %d", "hunter2", "hunter2")
    log.info("%s", Loud())
    log.info("next")
    first, second, third = read(reading, "next")
    assert re.fullmatch(rf"a line of of this test \({re.escape(__file__)}:\d+\) cannot be written: TypeError", first)
    assert second.endswith("cannot be written: ValueError")
    assert third == "next"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # it only logs
def test_a_forked_child_logs_by_itself(pipe: tuple[int, TextIO], log: logging.Logger) -> None:
    """A child that is forked while a line is stuck writes its own, and none of its parent's."""
    reading, stream = pipe
    log.addHandler(LogWriter(stream))
    os.set_blocking(stream.fileno(), False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(stream.fileno(), b"-" * 4095 + b"\n")
    os.set_blocking(stream.fileno(), True)
    log.info("the parent's")
    child = os.fork()
    if not child:
        log.info("the child's")
        for handler in log.handlers:
            handler.flush()
        os._exit(0)
    lines = read(reading, "the child's")
    assert os.waitpid(child, 0)[1] == 0
    lines += read(reading, "the parent's") if "the parent's" not in lines else []
    assert [line for line in lines if not line.startswith("-")].count("the parent's") == 1


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a stderr configures its log, and says nothing."""
    to_log = "from cluster_lock.host import logs\nlogs.configure()\nlogging.error('x')"
    code = f"import sys, logging; sys.stderr = None\n{to_log}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


PROGRAM = """
import logging, os, sys
from cluster_lock.host import logs
logs.configure()
logging.info("begins")
"""


@pytest.mark.parametrize("end", ["os._exit(3)", "sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_the_last_words_of_a_process_are_out(end: str) -> None:
    """What was logged just before the end is written, however the process ends."""
    done = subprocess.run([sys.executable, "-c", f"{PROGRAM}\nlogging.info('the last word'); {end}"], **CAPTURED)
    assert done.returncode in (3, -9)
    assert done.stderr.decode().splitlines()[-1].endswith("the last word")


CAPTURED: dict[str, Any] = {"capture_output": True, "timeout": 60}


def test_a_full_pipe_does_not_hold_up_the_end() -> None:
    """A process whose log nobody reads ends with its own code, a second late at most."""
    reading, writing = os.pipe()
    code = f"{PROGRAM}\nfor _ in range(5000): logging.info('x' * 100)\nprint('ends', flush=True)\nsys.exit(3)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=writing, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ends\n"
        assert process.wait(30 + LAST_WORDS) == 3
    os.close(reading)
    os.close(writing)


@pytest.mark.process
def test_a_leader_outlives_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """A leader that logs more than its unread pipe takes renews its lease, works on, and ends well."""
    reading, writing = os.pipe()
    program = [sys.executable, *module("support.unread_log"), str(tmp_path / "locks")]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(program, stderr=writing, env=environ)
    os.close(writing)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
    text = drained(os.fdopen(reading, "rb"))
    assert "line 0: " in text


def drained(pipe: IO[bytes]) -> str:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read()))
    reader.start()
    reader.join(30)
    pipe.close()
    return b"".join(found).decode()
