"""Where cosmic-ray would change something, and the sample of it that a seed chooses."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOMS = ("cluster_lock/lease", "cluster_lock/session", "cluster_lock/election")

ALIKE = ("core/ReplaceComparisonOperator_Is_Eq", "core/ReplaceComparisonOperator_IsNot_NotEq")
"""Changes that are none where they stand here: None, and the member of an enumeration, equals nothing but itself."""

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
    annotations = {file: _annotations(checkout / file) for file in {file for file, _, _ in by_place}}
    places = [place for place in by_place if not _is_within(annotations[place[0]], place)]
    order = random.Random(seed).sample(places, len(places))
    return [random.Random(f"{seed} {place}").choice(by_place[place]) for place in order[:size]]


def _annotations(path: Path) -> list[tuple[Position, Position]]:
    """Where the types stand: they are never evaluated."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    types = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    return [
        ((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0))
        for each in types
        if isinstance(each, ast.expr)
    ]


def _is_within(spans: list[tuple[Position, Position]], place: Place) -> bool:
    return any(start <= place[1] and place[2] <= end for start, end in spans)
