"""What accumulates, and what a violation leaves."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from chaos.backends import BACKENDS
from chaos.checker import check
from chaos.evidence import picture, story
from chaos.results import ROOMS, ROOT, Results, code_of, summary
from support.made_histories import MadeHistory


def test_rounds_of_other_code_do_not_count(tmp_path: Path) -> None:
    """Only rounds of the asked code are read, and none that the laboratory spoilt itself."""
    results, made = Results(tmp_path / "new" / "results.jsonl"), MadeHistory()
    made.fault("bot killed", 1.0, 2.0)
    for code, stray in (("one", []), ("two", []), ("one", ["no node started"])):
        made.history.stray = stray
        results.add(made.history, check(made.history), code=code)
    assert [row["code"] for row in results.rows()] == ["one", "two"]
    assert [row["code"] for row in results.rows(["two"])] == ["two"]
    assert "bot killed" in summary(results.rows())


def test_the_code_has_a_name(tmp_path: Path) -> None:
    """A line that changes in a room of the backend changes the name, one of another backend does not;
    what is common to all drivers and what is no Python counts."""
    rooms = {*ROOMS, *(backend.room for backend in BACKENDS.values())}
    assert all((ROOT / room).is_dir() for room in rooms)
    for room in rooms:
        (tmp_path / room).mkdir(parents=True)
    names = [code_of("postgres18", tmp_path)]
    (tmp_path / "drivers/consul/driver.py").write_text("another")
    assert code_of("postgres18", tmp_path) == names[0]
    for path in ("session/lock.py", "drivers/checked.py", "drivers/postgres/schema.sql"):
        (tmp_path / path).write_text("another")
        names.append(code_of("postgres18", tmp_path))
    assert len(set(names)) == len(names)


def test_a_violation_is_told() -> None:
    """What is wrong, what was done and what happened around it are in the story, and the picture is one."""
    made = MadeHistory()
    made.fault("bot killed", 2.5, 3.0, client="a#1")
    made.run(made.update(102, seq=3), made.a, 2.6, 3.5, 5)
    verdict = check(made.history)
    told = story(made.history, verdict)
    assert all(words in told for words in ("seed 7", "bot killed", "overlapping_work", "getUpdates of b#2"))
    assert ET.fromstring(picture(made.history, verdict).svg()).tag.endswith("svg")
