"""What counts as growth in a soak."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from chaos.soak import GROWTH, Footprint, Size, is_flat, plan

ONE = Footprint(mib=40.0, descriptors=16, threads=3, tasks=17)
LEASES = [3] * 4


def sizes(last: Size) -> list[Size]:
    return [{"bot-1": ONE}] * 3 + [last]


def test_what_stays_the_same_is_flat() -> None:
    """A descriptor or a task more may be under way at that moment, and an allocator keeps some memory."""
    assert is_flat(sizes({"bot-1": ONE}), LEASES)
    assert is_flat(sizes({"bot-1": Footprint(ONE.mib + GROWTH - 0.1, 18, 4, 21)}), LEASES)


@pytest.mark.parametrize(
    "grown",
    [
        {"bot-1": replace(ONE, mib=ONE.mib + GROWTH + 0.1)},
        {"bot-1": replace(ONE, descriptors=19)},
        {"bot-1": replace(ONE, threads=5)},
        {"bot-1": replace(ONE, tasks=22)},
        {"bot-2": ONE},
        {},
    ],
    ids=["memory", "descriptors", "threads", "tasks", "another process", "none"],
)
def test_what_grows_is_seen(grown: Size) -> None:
    """Growth of one kind is enough; and a process that ended meanwhile proves nothing."""
    assert not is_flat(sizes(grown), LEASES)


def test_leases_that_are_left_are_seen() -> None:
    """The store has no lease more at any time."""
    assert not is_flat(sizes({"bot-1": ONE}), [3, 3, 4, 3])


def test_a_round_has_hand_overs() -> None:
    """They are apart from each other by more than a drain takes."""
    moments = [choice.at for choice in plan()]
    assert len(moments) == 6
    assert all(after - before >= 4 for before, after in pairwise(moments))


def test_who_leads_has_more() -> None:
    """Another leader at the end than in the middle is no growth."""
    leads, stands_by = Footprint(41.0, 16, 3, 17), Footprint(39.0, 12, 2, 11)
    middle, end = {"bot-1": leads, "bot-2": stands_by}, {"bot-1": stands_by, "bot-2": leads}
    assert is_flat([middle, middle, end, end], LEASES)
