"""The file that a round leaves."""

from __future__ import annotations

from pathlib import Path

from chaos.checker import check
from chaos.history import History, without
from support.made_histories import MadeHistory


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A history is the same after its file: so its verdict is."""
    made = MadeHistory()
    made.fault("bot killed", 1.0, 2.0, excuses=["leaked"], client="a#1")
    made.run(made.update(102, seq=3), made.a, 2.6, 3.5, 5)
    made.history.save(tmp_path / "history.json")
    loaded = History.load(tmp_path / "history.json")
    assert loaded.requests == made.history.requests
    assert check(loaded) == check(made.history)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "history.json").read_text()


def test_spans_with_holes() -> None:
    """What is left of a span is what no hole covers."""
    assert list(without((0.0, 10.0), [(8.0, 12.0), (2.0, 3.0), (2.5, 4.0)])) == [(0.0, 2.0), (4.0, 8.0)]
    assert list(without((0.0, 1.0), [(0.0, 1.0)])) == []
    assert list(without((0.0, 1.0), [(3.0, 4.0)])) == [(0.0, 1.0)]
