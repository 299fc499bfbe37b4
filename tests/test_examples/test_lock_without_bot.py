"""docs/examples/lock_without_bot.py: one of many writes the report, and the database refuses who is too late."""

from __future__ import annotations

import importlib.util
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.examples import EXAMPLES, Example, Stages

DAY = "2025-06-30"


@pytest.fixture
def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("lock_without_bot", EXAMPLES / "lock_without_bot.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_the_report_is_written_once_whoever_dies(end: signal.Signals, tmp_path: Path, stage: Stages) -> None:
    """The instance that is at work ends before it has written; one of the others writes, with a larger token, and the
    last finds the report there. After SIGTERM the lock was released, after a kill -9 it was found free."""
    reports = tmp_path / "reports.sqlite"
    # Who holds for less than this after it found the lock free leaves no word that it was released.
    with stage("lock_without_bot.py", REPORT_COLLECTING="60", CLUSTER_LOCK_LOCK__SETTLE="1ms") as slow:
        first = await slow.start("a", str(reports), DAY)
        await first.says("token")
        with stage("lock_without_bot.py", REPORT_COLLECTING="0.1") as quick:
            others = [await quick.start(instance, str(reports), DAY) for instance in "bc"]
            for other in others:
                await other.says("waiting, held by a on ")
            assert rows(reports) == []
            first.send(end)
            assert await first.ended() == (1 if end is signal.SIGTERM else -signal.SIGKILL)
            assert [await other.ended() for other in others] == [0, 0]
            writer, reader = sorted(others, key=token_of)
            assert "written\n" in writer.output
            assert "somebody else has written it\n" in reader.output
            assert token_of(first) < token_of(writer) < token_of(reader)
            how = "released" if end is signal.SIGTERM else "found free"
            assert f"the lock was {how}\n" in writer.output
            assert rows(reports) == [(DAY, f"All is well on {DAY}", token_of(writer))]


def test_a_smaller_token_is_refused(example: Any, tmp_path: Path) -> None:
    """What a holder writes after the next holder has begun is refused by the database, even before that one has written
    anything, and nothing of it stays."""
    with closing(example.open_database(tmp_path / "reports.sqlite")) as database:
        assert not example.is_written(database, DAY, 7)
        assert not example.is_written(database, DAY, 9)  # the next holder begins
        with pytest.raises(sqlite3.IntegrityError, match="larger fencing token"):
            example.write(database, DAY, "too late", 7)
        assert rows(tmp_path / "reports.sqlite") == []
        with pytest.raises(sqlite3.IntegrityError, match="larger fencing token"):
            example.is_written(database, DAY, 7)
        example.write(database, DAY, "in time", 9)
        assert example.is_written(database, DAY, 10)
        assert rows(tmp_path / "reports.sqlite") == [(DAY, "in time", 9)]


@pytest.mark.process
async def test_a_wrong_configuration_is_one_line(tmp_path: Path, stage: Stages) -> None:
    """A wrong setting ends it with 78 and a sentence, not with a traceback."""
    with stage("lock_without_bot.py", CLUSTER_LOCK_LOCK__TTL="soon") as it:
        example = await it.start("a", str(tmp_path / "reports.sqlite"), DAY)
        assert await example.ended() == 78
        [line] = example.output.splitlines()
        assert line.startswith("CLUSTER_LOCK_LOCK__TTL: ")


def token_of(example: Example) -> int:
    match = re.search(r"^token (\d+), ", example.output, re.MULTILINE)
    assert match, example.output
    return int(match[1])


def rows(reports: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(reports)) as database:
        return database.execute("SELECT day, text, token FROM report ORDER BY day").fetchall()
