"""A pytest plugin: runs the tests that a list names, in its order, and notes the moment at which each begins."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

LIST = "MUTATE_LIST"
"""The file with the tests, one a line: after how many seconds it is taken to hang, and its name. Without it all run."""
NOTES = "MUTATE_NOTES"
"""The file for the notes: a moment and the name of the test that begins, one a line; at the end a moment alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if LIST in os.environ:
        named = {item.nodeid: item for item in items}
        items.clear()
        for line in Path(os.environ[LIST]).read_text().splitlines():
            limit, _, name = line.partition(" ")
            if name in named:  # else its parameter is what was changed
                named[name].add_marker(pytest.mark.timeout(float(limit)))
                items.append(named[name])


def pytest_runtest_logstart(nodeid: str) -> None:
    _note(nodeid)


def pytest_sessionfinish() -> None:
    _note("")


def _note(name: str) -> None:
    # Opened each time: a mutant may end the process at any moment.
    with open(os.environ[NOTES], "a") as notes:
        print(time.monotonic(), name, file=notes)
