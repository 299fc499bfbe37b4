"""Which tests run a line: no other can fail when it is changed."""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

from .copies import Copy
from .places import ROOMS, Mutation

IN_PROCESSES = {
    "tests/test_core/test_guard.py": "cluster_lock/lease/",
    "tests/test_core/test_guard_timer.py": "cluster_lock/lease/",
}
"""Tests that start processes, whose lines nobody counts, and what they are about: they are asked for each mutant of it,
and for no other, since they wait for time that is real."""


@dataclass(frozen=True)
class Reach:
    seconds: dict[str, float]
    """How long each test took, of all that there are."""
    lines: dict[str, dict[int, list[str]]]
    """By file and line, the tests that run it. An empty name among them: it runs when the file is imported."""

    def of(self, mutation: Mutation, code: str) -> list[str]:
        """The tests for it, the quickest first, those with processes of their own last. `code`: of the file."""
        counted = self.lines.get(mutation.file, {})
        # What is written over several lines may be counted under its first.
        names = {name for line in _statement(code, mutation.start[0]) for name in counted.get(line, ())}
        if "" in names:
            names = self.seconds.keys() - _of_others(self.seconds, mutation.file)
        names |= {name for name in self.seconds if _is_about(name, mutation.file)}
        return sorted(names, key=lambda name: (_is_about(name, mutation.file), self.seconds[name], name))


def _statement(code: str, line: int) -> range:
    """From the first line of the innermost statement that has this line, to this line."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    begin = max((node.lineno for node in nodes if node.lineno <= line <= (node.end_lineno or 0)), default=line)
    return range(begin, line + 1)


def _is_about(name: str, file: str) -> bool:
    room = IN_PROCESSES.get(name.partition("::")[0])
    return room is not None and file.startswith(room)


def _of_others(names: dict[str, float], file: str) -> set[str]:
    return {name for name in names if name.partition("::")[0] in IN_PROCESSES and not _is_about(name, file)}


def reach(copy: Copy, kept: Path) -> Reach:
    """From a run of all tests on what nobody changed, where none may fail. It takes a minute, so it is kept."""
    if not kept.exists():
        ran = copy.run(
            options=(
                "-p",
                "pytest_cov.plugin",
                "--cov=cluster_lock",
                "--cov-context=test",
                "--cov-report=",
                "--cov-fail-under=0",
            )
        )
        if ran.code != 0:
            sys.exit(f"mutate: the tests fail on what nobody changed:\n{ran.output}")
        kept.write_text(json.dumps({"seconds": ran.begun, "lines": _lines(copy.folder)}))
    read = json.loads(kept.read_text())
    lines = {file: {int(line): names for line, names in found.items()} for file, found in read["lines"].items()}
    return Reach(read["seconds"], lines)


def _lines(folder: Path) -> dict[str, dict[int, list[str]]]:
    data = CoverageData(basename=str(folder / ".coverage"))
    data.read()
    found: dict[str, dict[int, list[str]]] = defaultdict(dict)
    for path in data.measured_files():
        file = Path(path).relative_to(folder.resolve()).as_posix()
        if file.startswith(ROOMS):
            for line, contexts in data.contexts_by_lineno(path).items():
                found[file][line] = sorted({context.rpartition("|")[0] for context in contexts})
    return found
