"""`make mutate`: its sample, and its list of the mutants that change nothing."""

from __future__ import annotations

from pathlib import Path

from mutate.equivalents import Equivalent, equivalents
from mutate.places import Mutation, sample
from mutate.trials import Outcome, Trial

import cluster_lock

CODE = """\
def wider(width: int | None = None, by: int = 1) -> int | None:
    return width + by
"""
PLUS = ("core/Add_Sub", "core/Add_Mul")


def places(checkout: Path) -> list[Mutation]:
    (checkout / "code.py").write_text(CODE)
    in_annotations = [Mutation("code.py", "core/BitOr_Sub", n, (1, at), (1, at + 1)) for n, at in enumerate((21, 56))]
    number = Mutation("code.py", "core/NumberReplacer", 0, (1, 46), (1, 47))
    return [*in_annotations, number, *(Mutation("code.py", each, 0, (2, 17), (2, 18)) for each in PLUS)]


def test_a_sample_is_its_seeds(tmp_path: Path) -> None:
    """A seed chooses the same places in any order of what was found, one change in each, and no type."""
    found = places(tmp_path)
    chosen = sample(tmp_path, found, 10, seed=1)
    assert sorted(each.operator for each in chosen) in [[each, "core/NumberReplacer"] for each in PLUS]
    assert sample(tmp_path, found[::-1], 10, seed=1) == chosen
    assert sample(tmp_path, found, 1, seed=1) == chosen[:1]
    assert len({tuple(sample(tmp_path, found, 1, seed=seed)) for seed in range(20)}) > 1


FOR_TYPES = """\
if TYPE_CHECKING:
    import code
@dataclass(frozen=True, eq=False)
class Point:
    x: int = 1
@runtime_checkable
class Wide(Protocol):
    def width(self, by: int = 1) -> int: ...
"""


def test_what_is_for_the_types_alone_is_left_out(tmp_path: Path) -> None:
    """No sample has a protocol, what makes a dataclass frozen, or what is imported for the types; it has what stands
    beside them."""
    (tmp_path / "types.py").write_text(FOR_TYPES)
    seen = [
        Mutation("types.py", "core/ReplaceFalseWithTrue", 0, (3, 27), (3, 32)),
        Mutation("types.py", "core/NumberReplacer", 0, (5, 13), (5, 14)),
    ]
    unseen = [
        Mutation("types.py", "core/AddNot", 0, (1, 3), (1, 16)),
        Mutation("types.py", "core/ReplaceTrueWithFalse", 0, (3, 18), (3, 22)),
        Mutation("types.py", "core/NumberReplacer", 1, (8, 30), (8, 31)),
    ]
    decorators = [Mutation("types.py", "core/RemoveDecorator", n, (at, 0), (at + 1, 0)) for n, at in enumerate((3, 6))]
    assert {*sample(tmp_path, [*seen, *unseen, *decorators], 10, seed=1)} == {*seen, *decorators}


def test_an_entry_that_is_no_longer_right_is_told(tmp_path: Path) -> None:
    """The list says of each entry that its line is gone, or that its mutant dies after all."""
    places(tmp_path)
    was, becomes = "return width + by", "return width - by"
    entry = Equivalent("code.py", PLUS[0], was, becomes, "nobody knows")
    survived = Trial("code.py", 2, PLUS[0], was, becomes, Outcome.SURVIVED, by="", tests=1, seconds=1.0)
    killed = Trial("code.py", 2, PLUS[0], was, becomes, Outcome.KILLED, by="test_width", tests=1, seconds=1.0)
    assert entry.is_of(survived)
    assert not entry.wrong(tmp_path, [survived])
    assert "test_width" in entry.wrong(tmp_path, [killed])
    (tmp_path / "code.py").write_text("")
    assert "no such line" in entry.wrong(tmp_path, [])


def test_each_survivor_has_a_reason() -> None:
    """What may survive is a change of a line that is there, each once, and says why it changes nothing."""
    library = Path(cluster_lock.__file__).parents[1]
    named = equivalents()
    assert [(each.file, each.was) for each in named if each.wrong(library, []) or not each.why.strip()] == []
    assert len({(each.file, each.operator, each.was, each.becomes) for each in named}) == len(named)
