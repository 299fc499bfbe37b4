"""What a seed stands for."""

from __future__ import annotations

import pytest
from chaos.backends import BACKENDS
from chaos.nemesis import KINDS, choices, possible
from chaos.on_bots import RollingUpgrade

SEEDS = range(2000)


def test_a_seed_is_the_same_every_time() -> None:
    """A seed repeats its choices, and others make others."""
    assert [choices("etcd35", seed, 4.0) for seed in range(50)] == [choices("etcd35", seed, 4.0) for seed in range(50)]
    assert len({tuple(choices("etcd35", seed, 4.0)) for seed in range(50)}) == 50


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "bare"])
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_everything_comes(backend: str, kept: bool) -> None:
    """Each kind of fault that makes sense is chosen, on everybody that it can be done to, alone and with another one,
    and none besides."""
    plans = [choices(backend, seed, 4.0, kept=kept) for seed in SEEDS]
    assert {(choice.name, choice.on) for plan in plans for choice in plan} == {
        (name, on) for name, kind in possible(backend, kept=kept).items() for on in kind.of
    }
    assert {len(plan) for plan in plans} == {1, 2}
    assert all(len({choice.name for choice in plan}) == len(plan) for plan in plans)


def test_each_makes_sense_somewhere() -> None:
    """There is no kind of fault that no backend can have, but for those that this machine cannot."""
    anywhere = set().union(*(possible(backend, kept=kept) for backend in BACKENDS for kept in (True, False)))
    assert anywhere == {name for name, kind in KINDS.items() if kind.can_be_done()}


@pytest.mark.parametrize(
    ("backend", "never"),
    [
        ("etcd35", {"store killed", "store begins without its data", "store fails over to its replica"}),
        ("consul", {"store paused"}),
        ("redis", {"store node killed", "store without majority", "folder deleted by hand"}),
        ("postgres18", {"store node paused", "store begins without its data"}),
        ("file", {"bot cut from store", "store refuses the bot", "store killed", "store node killed"}),
    ],
)
def test_what_makes_no_sense(backend: str, never: set[str]) -> None:
    """No member of a cluster fails where there is a primary, no primary where there is a cluster, and no wire to a
    folder."""
    assert never <= KINDS.keys()
    assert not never & possible(backend, kept=True).keys()


def test_what_needs_a_keeper() -> None:
    """Nothing is done to a keeper's worker where there is none."""
    assert not any(KINDS[choice.name].kept for seed in SEEDS for choice in choices("etcd35", seed, 4.0))


def test_what_is_of_the_released_version() -> None:
    """It comes alone, to bots without a keeper, on the stores that both versions know."""
    name = RollingUpgrade.name
    plans = [plan for seed in SEEDS for plan in [choices("etcd35", seed, 4.0)] if name in {one.name for one in plan}]
    assert plans
    assert all(len(plan) == 1 for plan in plans)
    assert name not in possible("etcd35", kept=True)
    assert name not in possible("redis", kept=False)


def test_some_only() -> None:
    """The choice can be narrowed, by names that there are."""
    assert {choice.name for seed in SEEDS for choice in choices("file", seed, 4.0, ["bot killed"])} == {"bot killed"}
    for name in ("bot kissed", "bot cut from store"):
        with pytest.raises(ValueError, match="on file there are no faults"):
            choices("file", 1, 4.0, [name])
