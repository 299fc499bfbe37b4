"""What a seed stands for."""

from __future__ import annotations

import pytest
from chaos.nemesis import KINDS, choices

SEEDS = range(2000)


def test_a_seed_is_the_same_every_time() -> None:
    """A seed repeats its choices, and others make others."""
    assert [choices(seed, 4.0) for seed in range(50)] == [choices(seed, 4.0) for seed in range(50)]
    assert len({tuple(choices(seed, 4.0)) for seed in range(50)}) == 50


def test_everything_comes() -> None:
    """Each kind of fault is chosen, on everybody that it can be done to, alone and with another one."""
    plans = [choices(seed, 4.0, kept=True) for seed in SEEDS]
    assert {(choice.name, choice.on) for plan in plans for choice in plan} == {
        (name, on) for name, kind in KINDS.items() for on in kind.of
    }
    assert {len(plan) for plan in plans} == {1, 2}
    assert all(len({choice.name for choice in plan}) == len(plan) for plan in plans)


def test_what_needs_a_keeper() -> None:
    """Nothing is done to a keeper's worker where there is none."""
    assert not any(KINDS[choice.name].kept for seed in SEEDS for choice in choices(seed, 4.0))


def test_some_only() -> None:
    """The choice can be narrowed, by names that there are."""
    assert {choice.name for seed in SEEDS for choice in choices(seed, 4.0, ["bot killed"])} == {"bot killed"}
    with pytest.raises(ValueError, match="no faults"):
        choices(1, 4.0, ["bot kissed"])
