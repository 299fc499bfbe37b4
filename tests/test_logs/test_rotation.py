"""The log of a bot in the background does not fill the disk."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from cluster_lock.host import log_rotation
from cluster_lock.host.log_rotation import VARIABLE, Rotation
from cluster_lock.host.log_writer import LogWriter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no --detach on Windows")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log that may be cut, at 1000 bytes."""
    path = tmp_path / "web-1.log"
    monkeypatch.setattr(log_rotation, "LARGEST", 1000)
    monkeypatch.setattr(Rotation.__init__, "__defaults__", (1000,))
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def write(path: Path, lines: int) -> None:
    """Log so many lines of 100 bytes, as a process does whose stderr that file is."""
    with path.open("a") as stream:
        writer = LogWriter(stream)
        for number in range(lines):
            writer.emit(logging.makeLogRecord({"msg": f"{number:099}"}))
        writer.close()


def test_it_is_begun_anew(log: Path) -> None:
    """At its largest size the file is begun anew, what was in it is in FILE.1, and nothing is lost or left over."""
    write(log, 25)
    kept = Path(f"{log}.1")
    assert [int(line) for line in (kept.read_text() + log.read_text()).splitlines()] == list(range(10, 25))
    assert sorted(log.parent.iterdir()) == [log, kept]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_others_write_to_it_comes_after(log: Path) -> None:
    """Who has the same file open goes on at its new end, and not where the old one was."""
    with log.open("a") as other:
        write(log, 12)
        other.write("print of the bot\n")
    assert log.read_bytes().count(b"\0") == 0
    assert log.read_text().endswith("print of the bot\n")


def test_a_file_of_somebodys_own_is_left_alone(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was not made by --detach (`2> file`) is never cut, whatever else is named."""
    mine = log.with_name("mine.log")
    write(mine, 25)
    assert len(mine.read_text().splitlines()) == 25
    monkeypatch.delenv(VARIABLE)
    write(log, 25)
    assert len(log.read_text().splitlines()) == 25


def test_one_process_at_a_time(log: Path) -> None:
    """While another process is at it the file is left to that one."""
    import fcntl

    log.touch()
    with log.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write(log, 25)
    assert len(log.read_text().splitlines()) == 25


def test_without_room_for_a_copy_the_log_goes_on(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk nothing raises, no half of a copy stays, and lines go on being written."""

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("shutil.copyfileobj", full)
    write(log, 25)
    assert len(log.read_text().splitlines()) == 25
    assert list(log.parent.iterdir()) == [log]
