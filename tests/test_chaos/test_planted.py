"""The bugs that the laboratory must find, and what their search has shown."""

from __future__ import annotations

from typing import Any

import pytest
from chaos.nemesis import possible
from chaos.planted import Outcome, Planted, outcome, planted
from support import mutants

PLANT = Planted("trusts_twice_the_ttl", "etcd35", ("bot killed",))


def row(*violations: str, mutant: str = PLANT.mutant) -> dict[str, Any]:
    return {"mutant": mutant, "backend": "etcd35", "violations": list(violations)}


def test_there_are_enough() -> None:
    """So many that luck does not find them."""
    assert len(planted()) >= 39


@pytest.mark.parametrize("plant", planted(), ids=lambda plant: plant.mutant)
def test_each_can_be_looked_for(plant: Planted) -> None:
    """Its mutant is there, and its faults make sense on its backend."""
    assert callable(getattr(mutants, plant.mutant))
    assert set(plant.faults) <= possible(plant.backend, kept=plant.kept).keys()


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], None),
        ([row(mutant="another"), row("leaked", mutant="another")], None),
        ([row(), row("leaked", "lost", "leaked")], Outcome(2, ("leaked", "lost"))),
        ([row(), row("lost"), row(), row(), row("leaked")], Outcome(3, ("leaked",))),
        ([row(), row()], Outcome(2, ())),
        ([row("lost"), row()], Outcome(1, ())),
    ],
    ids=["never", "another one", "found", "found again", "not found", "not found again"],
)
def test_the_last_search_counts(rows: list[dict[str, Any]], found: Outcome | None) -> None:
    """A search ends with the round that finds it."""
    assert outcome(PLANT, rows) == found
