"""`python -m chaos.page`: puts into docs/reliability.md what all rounds with the present code have shown."""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .backends import BACKENDS
from .planted import Planted, outcome, planted
from .results import Json, Results, code_of

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BAR = 0.5
"""Seconds that one block of a bar stands for."""
SHORTEST, LONGEST = "▏", 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.page", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".chaos"))
    options = parser.parse_args()
    results = Results(options.folder / "results.jsonl")
    rows = results.rows({code_of(backend) for backend in BACKENDS})
    text = PAGE.read_text()
    for name, table in (
        ("rounds", rounds(rows)),
        ("faults", faults(rows)),
        ("planted", bugs(planted(), results.rows())),
    ):
        text = put(text, name, table)
    PAGE.write_text(text)
    return 0


def put(text: str, name: str, table: Sequence[str]) -> str:
    """The page with another table between its marks."""
    begin, end = f"<!-- {name}: written by python -m chaos.page -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{PAGE.name} has no place for {name}")
    return pattern.sub(lambda _: "\n".join([begin, *table, end]), text)


def rounds(rows: Iterable[Json]) -> list[str]:
    """One line for each backend."""
    lines = [
        "| backend | rounds | under a keeper | violations | counted apart | nobody led, s: median, longest | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend in BACKENDS:
        if own := [row for row in rows if row["backend"] == backend and not row["mutant"]]:
            gaps = [row["leaderless"] for row in own]
            apart: Counter[str] = sum((Counter(row["counted"]) for row in own), Counter())
            told = ", ".join(f"{name}: {count}" for name, count in sorted(apart.items()) if count) or "nothing"
            kept, wrong = (sum(bool(row[what]) for row in own) for what in ("kept", "violations"))
            spread = f"{statistics.median(gaps):.2f}, {max(gaps):.2f}"
            seeds = spans({row["seed"] for row in own})
            lines.append(f"| {backend} | {len(own)} | {kept} | {wrong} | {told} | {spread} | {seeds} |")
    return lines


def faults(rows: Iterable[Json]) -> list[str]:
    """One line for each fault on each backend. A round with two counts for both."""
    found: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for row in rows:
        if not row["mutant"]:
            for name in {name for name, _ in row["faults"]}:
                found[row["backend"], name].append(row)
    lines = [
        "| backend | fault | rounds | violations | nobody led, s: shortest, median, longest | |",
        "|---|---|---|---|---|---|",
    ]
    for (backend, name), own in sorted(found.items()):
        gaps = [row["leaderless"] for row in own]
        middle = statistics.median(gaps)
        wrong = sum(bool(row["violations"]) for row in own)
        spread = f"{min(gaps):.2f}, {middle:.2f}, {max(gaps):.2f}"
        lines.append(f"| {backend} | {name} | {len(own)} | {wrong} | {spread} | {bar(middle, max(gaps))} |")
    return lines


def bar(middle: float, longest: float) -> str:
    """To the median in black, from there to the longest in grey."""
    black, whole = (min(LONGEST, round(seconds / BAR)) for seconds in (middle, longest))
    return "█" * black + "░" * (whole - black) or SHORTEST


def bugs(plants: Iterable[Planted], rows: Sequence[Json]) -> list[str]:
    """One line for each planted bug."""
    lines = ["| mutant | backend | found in round | by the check |", "|---|---|---|---|"]
    for plant in plants:
        found = outcome(plant, rows)
        where = f"{plant.backend}, under a keeper" if plant.kept else plant.backend
        if found is None:
            said = "not looked for yet | "
        elif found.checks:
            said = f"{found.rounds} | {', '.join(f'`{name}`' for name in found.checks)}"
        else:
            said = f"not in {found.rounds} | "
        lines.append(f"| `{plant.mutant}` | {where} | {said} |")
    return lines


def spans(seeds: Iterable[int]) -> str:
    """1-3, 7."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


if __name__ == "__main__":
    sys.exit(main())
