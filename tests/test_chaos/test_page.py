"""What the page of reliability says of rounds."""

from __future__ import annotations

from typing import Any

import pytest
from chaos.page import PAGE, bar, bugs, faults, put, rounds, spans
from chaos.planted import Planted


def row(seed: int, gap: float, *violations: str, mutant: str = "", names: tuple[str, ...] = ("bot killed",)) -> Any:
    return {
        "backend": "etcd35",
        "seed": seed,
        "mutant": mutant,
        "kept": seed > 2,
        "faults": [[name, "leader"] for name in names],
        "violations": list(violations),
        "counted": {"renumbered": 2},
        "leaderless": gap,
    }


ROWS = [row(1, 0.5), row(2, 2.0), row(3, 1.0, "leaked", names=("bot killed", "GIL held")), row(9, 0.1, mutant="m")]


def test_a_backend_has_a_line() -> None:
    """All its rounds, without those of mutants."""
    assert rounds(ROWS)[2:] == ["| etcd35 | 3 | 1 | 1 | renumbered: 6 | 1.00, 2.00 | 1-3 |"]


def test_a_fault_has_a_line() -> None:
    """A round with two faults counts for both."""
    assert faults(ROWS)[2:] == [
        "| etcd35 | GIL held | 1 | 1 | 1.00, 1.00, 1.00 | ██ |",
        "| etcd35 | bot killed | 3 | 1 | 0.50, 1.00, 2.00 | ██░░ |",
    ]


def test_a_planted_bug_has_a_line() -> None:
    """Also one that was never looked for, or never found."""
    plants = [Planted(name, "etcd35", ()) for name in ("m", "n", "o")]
    assert bugs(plants, [*ROWS, row(4, 0.1, mutant="o"), row(5, 0.1, "lost", mutant="o")])[2:] == [
        "| `m` | etcd35 | not in 1 |  |",
        "| `n` | etcd35 | not looked for yet |  |",
        "| `o` | etcd35 | 2 | `lost` |",
    ]


def test_bars() -> None:
    """A gap that is too short for a block is seen all the same, and one that is too long is cut."""
    assert (bar(0.1, 0.2), bar(0.5, 1.0), len(bar(100, 200))) == ("▏", "█░", 40)


def test_spans() -> None:
    """Seeds that follow each other are told together."""
    assert spans([]) == ""
    assert spans({5, 1, 2, 3, 9, 8}) == "1-3, 5, 8-9"


def test_the_page_has_room() -> None:
    """Each table has a place on it, and only there."""
    for name in ("rounds", "faults", "planted"):
        assert "THE TABLE" in put(PAGE.read_text(), name, ["THE TABLE"])
    with pytest.raises(ValueError, match="no place for"):
        put(PAGE.read_text(), "another", [])
