"""Where cosmic-ray would change something, and the sample of it that a seed chooses."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOMS = ("cluster_lock/lease", "cluster_lock/session", "cluster_lock/election")

ALIKE = ("core/ReplaceComparisonOperator_Is_Eq", "core/ReplaceComparisonOperator_IsNot_NotEq")
"""Changes that are none where they stand here: None, and the member of an enumeration, equals nothing but itself."""

REFUSING = ("frozen", "slots", "kw_only")
"""Options of a dataclass."""

Position = tuple[int, int]
Place = tuple[str, Position, Position]


@dataclass(frozen=True)
class Mutation:
    """One change. `occurrence` counts the places in the file that `operator` could change."""

    file: str
    operator: str
    occurrence: int
    start: Position
    end: Position


def found(checkout: Path, kept: Path) -> list[Mutation]:
    """All that cosmic-ray would do to the rooms. It takes seconds, so it is kept in the file `kept`."""
    if not kept.exists():
        kept.write_text(json.dumps([asdict(each) for each in _listed(checkout)]))
    return [
        Mutation(**{**each, "start": tuple(each["start"]), "end": tuple(each["end"])})
        for each in json.loads(kept.read_text())
    ]


def _listed(checkout: Path) -> Iterator[Mutation]:
    cosmic_ray = Path(sys.executable).with_name("cosmic-ray")
    with tempfile.TemporaryDirectory() as folder:
        settings, session = Path(folder, "settings.toml"), Path(folder, "session.sqlite")
        settings.write_text(
            f"[cosmic-ray]\nmodule-path = {json.dumps(ROOMS)}\ntimeout = 1.0\nexcluded-modules = []\n"
            'test-command = "none"\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        subprocess.run([cosmic_ray, "init", settings, session], cwd=checkout, check=True)
        dump = subprocess.run([cosmic_ray, "dump", session], cwd=checkout, check=True, capture_output=True, text=True)
    for line in dump.stdout.splitlines():
        for each in json.loads(line)[0]["mutations"]:
            start, end = each["start_pos"], each["end_pos"]
            yield Mutation(each["module_path"], each["operator_name"], each["occurrence"], tuple(start), tuple(end))


def sample(checkout: Path, mutations: list[Mutation], size: int, seed: int) -> list[Mutation]:
    """`size` places, in each of them one change: a place has up to 11, which would be much the same. A smaller sample
    is the beginning of a larger one."""
    by_place: defaultdict[Place, list[Mutation]] = defaultdict(list)
    for each in sorted(mutations, key=lambda each: (each.file, each.start, each.end, each.operator, each.occurrence)):
        if each.operator not in ALIKE:
            by_place[each.file, each.start, each.end].append(each)
    files = {
        file: ast.parse((checkout / file).read_text(encoding="utf-8")) for file in {file for file, _, _ in by_place}
    }
    annotations = {file: _spans(_annotations(code)) for file, code in files.items()}
    unseen = {file: _spans(_unseen(code)) for file, code in files.items()}
    places = [place for place in by_place if not _is_within(annotations[place[0]], place)]
    order = random.Random(seed).sample(places, len(places))
    # Left out of the order, not before it: with more or less of it a seed has the other places in the same order.
    order = [place for place in order if not _is_within(unseen[place[0]], place)]
    return [random.Random(f"{seed} {place}").choice(by_place[place]) for place in order[:size]]


def _annotations(code: ast.Module) -> Iterator[ast.AST | None]:
    """The types: they are never evaluated."""
    for node in ast.walk(code):
        yield from (getattr(node, name, None) for name in ("annotation", "returns"))


def _unseen(code: ast.Module) -> Iterator[ast.AST | None]:
    """What else no test can see: protocols, what is imported for the types, and by which options a dataclass refuses
    what the type checkers refuse before it."""
    for node in ast.walk(code):
        match node:
            case ast.ClassDef(bases=[*_, ast.Name("Protocol")]) | ast.If(test=ast.Name("TYPE_CHECKING"), orelse=[]):
                yield node
            case ast.Call(func=ast.Name("dataclass")):
                yield from (option.value for option in node.keywords if option.arg in REFUSING)


def _spans(nodes: Iterable[ast.AST | None]) -> list[tuple[Position, Position]]:
    return [
        ((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0))
        for each in nodes
        if isinstance(each, ast.expr | ast.stmt)
    ]


def _is_within(spans: list[tuple[Position, Position]], place: Place) -> bool:
    return any(start <= place[1] and place[2] <= end for start, end in spans)
