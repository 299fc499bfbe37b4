"""`python -m chaos.planted`: does the laboratory find the bugs of planted.toml? 0 if it found each."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .results import Json, Results

WITHIN = 20
"""Rounds."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A mutant, and where it shows: on this backend, under these faults, with a keeper above each bot or without."""

    mutant: str
    backend: str
    faults: tuple[str, ...]
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rounds` until it was found, and by which checks; none of them in all rounds so far."""

    rounds: int
    checks: tuple[str, ...]


def planted() -> list[Planted]:
    said = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return [Planted(name, **(each | {"faults": tuple(each["faults"])})) for name, each in said.items()]


def outcome(plant: Planted, rows: Iterable[Json]) -> Outcome | None:
    """Of the last search for it; None if there was none."""
    own = [row for row in rows if row["mutant"] == plant.mutant and row["backend"] == plant.backend]
    if not own:
        return None
    # A search ends with what it finds.
    last = own[max((at for at, row in enumerate(own[:-1], 1) if row["violations"]), default=0) :]
    return Outcome(len(last), tuple(dict.fromkeys(last[-1]["violations"])))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.planted", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(".chaos"))
    options = parser.parse_args()
    missed = 0
    for plant in planted():
        if options.names and plant.mutant not in options.names:
            continue
        print(f"== {plant.mutant}", flush=True)
        arguments = ["--backend", plant.backend, "--only", ",".join(plant.faults), "--mutant", plant.mutant]
        arguments += ["--kept"] if plant.kept else []
        arguments += ["--seed", str(options.seed), "--folder", str(options.folder)]
        command = [sys.executable, "-m", "chaos", "--until-found", "--rounds", str(WITHIN), *arguments]
        subprocess.run(command, check=False)  # it ends with 1, as it should
        found = outcome(plant, Results(options.folder / "results.jsonl").rows())
        good = found is not None and bool(found.checks)
        missed += not good
        print(f"   {plant.mutant}: {found if good else 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
