"""What failures of a getUpdates are called."""

from __future__ import annotations

from cluster_lock.aiogram.classify import Kind
from cluster_lock.health.totals import KINDS


def test_every_kind_of_failure_has_its_series() -> None:
    """The metrics know of each kind before the first failure of it."""
    assert {*KINDS} == {*map(str, Kind)}
