"""What all rounds so far have shown, in one file. Those of other code do not count: the content of the rooms that a
backend uses is hashed."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cluster_lock

from .availability import longest
from .backends import BACKENDS
from .checker import Verdict
from .history import History

CODE = (".py", ".sql")
Json = dict[str, Any]
ROOT = Path(cluster_lock.__file__).parent
ROOMS = ("values", "lease", "session", "election", "aiogram", "telegram", "process", "host", "drivers/shared", "keeper")


def code_of(backend: str, root: Path = ROOT) -> str:
    """A name for the code that runs with this backend: another one as soon as a line of it changes."""
    found = hashlib.sha256()
    rooms = (root / room for room in (*ROOMS, BACKENDS[backend].room))
    files = [*root.glob("*.py"), *root.glob("drivers/*.py"), *(path for room in rooms for path in room.rglob("*.*"))]
    for path in sorted(path for path in files if path.suffix in CODE):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


class Results:
    """One JSON object a line, added at the end: two runs may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, history: History, verdict: Verdict, *, code: str, mutant: str = "", kept: bool = False) -> Json:
        row: Json = {
            "backend": history.backend,
            "code": code,
            "mutant": mutant,
            "kept": kept,
            "seed": history.seed,
            "faults": [[fault.name, fault.on] for fault in history.faults],
            "violations": [finding.check for finding in verdict.violations],
            "counted": dict(verdict.excused),
            "leaderless": round(longest(history), 2),
            "took": round(history.ended - history.began, 1),
            "stray": history.stray,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row

    def rows(self, codes: Iterable[str] | None = None) -> list[Json]:
        """All rounds, or those of this code, without the ones that the laboratory spoilt itself."""
        if not self.path.exists():
            return []
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        wanted = None if codes is None else set(codes)
        return [row for row in rows if not row["stray"] and (wanted is None or row["code"] in wanted)]


def summary(rows: Iterable[Json]) -> str:
    """For people: for each backend and fault, the rounds, their violations, and how long nobody led."""
    by_fault: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for row in rows:
        if not row["mutant"]:
            for name, _ in row["faults"]:
                by_fault[row["backend"], name].append(row)
    lines = [f"{'backend':8} {'fault':44} {'rounds':>6} {'violations':>10}   nobody led, s (min, median, max)"]
    for (backend, name), found in sorted(by_fault.items()):
        gaps = [row["leaderless"] for row in found]
        wrong = Counter(check for row in found for check in set(row["violations"]))
        spread = f"{min(gaps):6.2f} {statistics.median(gaps):6.2f} {max(gaps):6.2f}"
        words = " ".join(f"{check}:{count}" for check, count in wrong.items())
        lines.append(f"{backend:8} {name:44} {len(found):6} {sum(wrong.values()):10}   {spread}  {words}".rstrip())
    return "\n".join(lines)
