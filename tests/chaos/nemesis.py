"""What will be done in a round: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from . import on_bots, on_hand_overs, on_network, on_nodes, on_store, on_telegram, on_workers
from .backends import BACKENDS
from .faults import Fault

KINDS: dict[str, type[Fault]] = {
    kind.name: kind
    for room in (on_bots, on_hand_overs, on_workers, on_network, on_nodes, on_store, on_telegram)
    for kind in room.ALL
}
TWICE = 0.4
"""The share of the rounds in which two things happen at once."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One fault: on whom, how many seconds after the start of the round, and for how many."""

    name: str
    on: str
    at: float
    lasts: float


def possible(backend: str, *, kept: bool) -> dict[str, type[Fault]]:
    """What makes sense on this backend, for bots with or without keepers."""
    has = {None, *BACKENDS[backend].has}
    fits = {name: kind for name, kind in KINDS.items() if kind.needs in has and kind.can_be_done()}
    return {name: kind for name, kind in fits.items() if not (kind.bare if kept else kind.kept)}


def choices(backend: str, seed: int, ttl: float, only: Collection[str] = (), *, kept: bool = False) -> list[Choice]:
    """What this seed stands for. `only`: among these kinds of faults. ValueError for one that is not possible."""
    those = possible(backend, kept=kept)
    if unknown := set(only) - those.keys():
        raise ValueError(f"on {backend} there are no faults {sorted(unknown)}; there are {sorted(those)}")
    source = random.Random(seed)
    kinds = [kind for name, kind in those.items() if not only or name in only]
    count = 2 if source.random() < TWICE and len(kinds) > 1 else 1
    picked: list[type[Fault]] = []
    while len(picked) < count:
        [kind] = source.choices(kinds, [kind.weight for kind in kinds])
        if kind not in picked:
            picked.append(kind)
    alone = [kind for kind in picked if kind.alone]
    return [_choice(source, kind, ttl) for kind in alone[:1] or picked]


def _choice(source: random.Random, kind: type[Fault], ttl: float) -> Choice:
    return Choice(
        kind.name,
        source.choice(list(kind.of)),
        round(source.uniform(0.3, 0.3 + 0.4 * ttl), 3),
        round(ttl * source.uniform(*kind.lasts), 3),
    )
