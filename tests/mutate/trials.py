"""What became of each mutant, in a file that a stopped run goes on with."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from .copies import TESTS, Copy
from .places import Mutation
from .reach import Reach


class Outcome(StrEnum):
    KILLED = "killed"
    HUNG = "hung"
    """Killed too: its tests came to no end."""
    SURVIVED = "survived"
    NOT_VIABLE = "not viable"
    """Python or the import of the library refuses it, before any test."""


@dataclass(frozen=True)
class Trial:
    file: str
    line: int
    operator: str
    was: str
    becomes: str
    outcome: Outcome
    by: str
    """The test that ended it, if one did."""
    tests: int
    seconds: float


@dataclass(frozen=True)
class Content:
    """Hashes of what a result depends on."""

    library: str
    tests: str
    files: dict[str, str]
    """By file of tests."""

    @classmethod
    def of(cls, checkout: Path) -> Content:
        support = _hash(checkout, ("tests/support", "tests/conftest.py", "requirements/mutate.txt"))
        library = _hash(checkout, ("cluster_lock", "requirements/mutate.txt"))
        paths = [file for part in TESTS for file in _files(checkout / part)]
        names = [file.relative_to(checkout).as_posix() for file in paths]
        files = {name: _hash(checkout, (name,)) + support for name in names}
        return cls(library, _hash(checkout, (*TESTS, "cluster_lock")) + support, files)


def _hash(checkout: Path, parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        for file in _files(checkout / part):
            found.update(f"{file.relative_to(checkout)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    within = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in within if file.is_file() and "__pycache__" not in file.parts]


class Results:
    """`may_survive`: whether a survivor is named with a reason why no test can end it."""

    def __init__(self, path: Path, content: Content, may_survive: Callable[[Trial], bool]) -> None:
        self._path = path
        self._content = content
        self._may_survive = may_survive
        self._turn = threading.Lock()
        self._rows = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            row = json.loads(line)
            self._rows[row["key"]] = row

    def known(self, mutation: Mutation) -> Trial | None:
        """Who was killed stays dead while that test is the same. Who survived may meet other tests now, unless none can
        help."""
        row = self._rows.get(self._key(mutation))
        if row is None:
            return None
        trial = Trial(**{**row["trial"], "outcome": Outcome(row["trial"]["outcome"])})
        stands = row["tests"] == self._content.tests or (trial.by and row["by"] == self._of(trial.by))
        no_test_helps = trial.outcome is Outcome.NOT_VIABLE or self._may_survive(trial)
        return trial if stands or no_test_helps else None

    def add(self, mutation: Mutation, trial: Trial) -> None:
        row = {
            "key": self._key(mutation),
            "tests": self._content.tests,
            "by": self._of(trial.by),
            "trial": asdict(trial),
        }
        with self._turn, self._path.open("a") as file:
            print(json.dumps(row), file=file)

    def _of(self, test: str) -> str:
        return self._content.files.get(test.partition("::")[0], "")

    def _key(self, mutation: Mutation) -> str:
        return f"{self._content.library} {mutation.file} {mutation.operator} {mutation.occurrence}"


def tried(copy: Copy, mutation: Mutation, reach: Reach) -> Trial:
    begin = time.monotonic()
    with copy.changed(mutation) as (before, after):
        names = reach.of(mutation, before)
        outcome, by = _outcome(copy, {name: 20 + 5 * reach.seconds[name] for name in names}, after)
    line, was, becomes = _difference(before, after)
    seconds = round(time.monotonic() - begin, 1)
    return Trial(mutation.file, line, mutation.operator, was, becomes, outcome, by, len(names), seconds)


def _outcome(copy: Copy, limits: dict[str, float], code: str) -> tuple[Outcome, str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(code, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return Outcome.NOT_VIABLE, ""
    if not limits:
        return Outcome.SURVIVED, ""
    ran = copy.run(limits)
    if ran.code == 0:
        return Outcome.SURVIVED, ""
    if not ran.begun:
        return Outcome.NOT_VIABLE, ""
    hangs = ran.code is None or "+ Timeout +" in ran.output
    return Outcome.HUNG if hangs else Outcome.KILLED, list(ran.begun)[-1]


def _difference(before: str, after: str) -> tuple[int, str, str]:
    """The first line that differs: its number, its text, and what it becomes."""
    lines = zip_longest(before.split("\n"), after.split("\n"), fillvalue="")
    # An empty one is what stood above a line that went.
    return next(
        (number, was.strip(), becomes.strip())
        for number, (was, becomes) in enumerate(lines, 1)
        if was != becomes and was.strip()
    )


def cosmic_ray() -> str:
    return f"cosmic-ray {version('cosmic-ray')}"
