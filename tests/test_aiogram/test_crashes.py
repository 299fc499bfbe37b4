"""An update whose handler ends the process does so three times at an instance, and not for ever."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from support.nursery import Nursery

from cluster_lock.aiogram.crashes import CrashNotes


def test_a_crash_is_counted_for_what_was_being_handled(tmp_path: Path) -> None:
    """What had begun and not ended when the process was gone has one crash more; what had ended has none."""
    path = tmp_path / "state" / "42-web-1"
    first = CrashNotes(path)
    for update_id in (5, 6, 7):
        first.begin(update_id)
    first.end(6)
    second = CrashNotes(path)
    assert second.crashes == {5: 1, 7: 1}
    second.begin(7)
    third = CrashNotes(path)
    assert third.crashes == {5: 1, 7: 2}
    third.begin(5)
    third.end(5)
    assert CrashNotes(path).crashes == {7: 2}


def test_what_a_program_leaves_to_the_next_one(tmp_path: Path) -> None:
    """What was handled when another program took the place of this one is no crash, and is known to be done; what was
    being handled beside it was in a crash."""
    path = tmp_path / "notes"
    first = CrashNotes(path)
    for update_id in (5, 6, 7):
        first.begin(update_id)
    assert first.current() == 7
    first.end(6)
    first.leave([6, 7])
    second = CrashNotes(path)
    assert (second.crashes, second.done, second.current()) == ({5: 1}, {6, 7}, None)
    second.close()
    assert CrashNotes(path).done == set()


@pytest.mark.slow
@pytest.mark.xdist_group("nursery 0")
def test_an_exec_that_fails_leaves_nothing(tmp_path: Path, nursery: Nursery) -> None:
    """What was left for a program that never came is done for no other process, and was in a crash; nor is it done for
    the program of a later exec that succeeds."""
    path = tmp_path / "notes"
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from cluster_lock.aiogram.crashes import CrashNotes\n"
        "notes = CrashNotes(Path(sys.argv[1])); notes.begin(5); notes.leave([5])"
    )
    child = nursery.start([str(script), str(path)], os.environ, log=tmp_path / "log")
    assert child.wait(60) == 0, child.output
    second = CrashNotes(path)
    assert (second.crashes, second.done) == ({5: 1}, set())
    for update_id in (6, 7):
        second.begin(update_id)
        second.leave([update_id])
    third = CrashNotes(path)
    assert (third.crashes, third.done) == ({5: 1, 6: 1}, {7})


def test_who_survives_a_term_suspects_nothing(tmp_path: Path) -> None:
    """The end of a term that is no end of the process clears the notes."""
    path = tmp_path / "notes"
    notes = CrashNotes(path)
    notes.begin(5)
    notes.close()
    notes.end(5)
    assert CrashNotes(path).crashes == {}


def test_more_at_once_than_there_is_room_for(tmp_path: Path) -> None:
    """What finds no room is handled without a note."""
    notes = CrashNotes(tmp_path / "notes")
    for update_id in range(1, 2000):
        notes.begin(update_id)
    assert len(CrashNotes(tmp_path / "notes").crashes) == 1024
    for update_id in range(1, 2000):
        notes.end(update_id)
    assert CrashNotes(tmp_path / "notes").crashes == {}


def test_a_place_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no notes can be kept, one warning says so, and nothing else is different."""
    (tmp_path / "notes").mkdir()
    with caplog.at_level(logging.WARNING):
        notes = CrashNotes(tmp_path / "notes")
    notes.begin(5)
    notes.end(5)
    notes.close()
    assert notes.crashes == {}
    assert len(caplog.records) == 1


def test_what_somebody_else_wrote_there(tmp_path: Path) -> None:
    """A file of another length is begun anew."""
    path = tmp_path / "notes"
    path.write_bytes(b"of an older version")
    path.chmod(0o600)
    CrashNotes(path).begin(5)
    assert CrashNotes(path).crashes == {5: 1}
