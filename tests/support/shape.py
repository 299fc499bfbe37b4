"""The floor plan of the library: its rooms from the top down, and which module imports which. It reads the code and
imports none of it: for tests/test_shape.py and scripts/shape."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "cluster_lock"

ROOMS = (
    "__main__",
    "cli",
    "aiogram",
    "keeper",
    "health",
    "election",
    "admin",
    "session",
    "process",
    "config",
    "drivers",
    "testing",
    "lease",
    "telegram",
    "host",
    "observer",
    "driver",
    "values",
    "clock",
    "aio",
    "errors",
    "lazy",
    "version",
)
"""From the top down: a room imports those below it, and none imports each other. Imports for types count, too."""


@dataclass(frozen=True)
class Module:
    """One file of the library."""

    path: Path
    name: str
    """With dots and without the package: "session.lock"; a package's `__init__` has the name of its folder."""
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0] or "__init__"

    def __str__(self) -> str:
        return self.name or "__init__"


def modules(root: Path) -> list[Module]:
    """Each module under `root`, the folder of the package."""
    return [
        Module(path, _name(path.relative_to(root)), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(root.rglob("*.py"))
    ]


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(module: Module) -> Iterator[str]:
    """What a module imports from the library, early, late or for types: dotted names without the package, of modules or
    of what is in them."""
    folder = [PACKAGE, *module.name.split(".")]
    if module.path.name != "__init__.py":
        del folder[-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*(part for part in base if part), *(node.module.split(".") if node.module else [])]
            full = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(f"{PACKAGE}.") for name in full if name.startswith(f"{PACKAGE}."))


def upward(house: Iterable[Module]) -> list[str]:
    """The imports of what stands above, each as a sentence."""
    rank = {room: number for number, room in enumerate(ROOMS)}
    return [
        f"{module} imports {target}"
        for module in house
        if module.room != "__init__"  # it names what is public, late
        for target in imported(module)
        if rank.get(target.partition(".")[0], -1) < rank[module.room]
    ]


def graph(house: Iterable[Module]) -> dict[str, list[str]]:
    """Which modules each module imports."""
    by_name = {module.name: module for module in house}
    return {
        name: sorted({_module_of(target, by_name) for target in imported(module)} - {name})
        for name, module in by_name.items()
    }


def _module_of(target: str, known: Mapping[str, Module]) -> str:
    """The longest part of a dotted name that is a module; the root for a name that it exports."""
    while target and target not in known:
        target = target.rpartition(".")[0]
    return target


def circles(house: Iterable[Module]) -> list[list[str]]:
    """The modules that import each other, in one step or over others: circles, until none is left when one import of
    each is taken away."""
    edges, found = graph(house), []
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1][1:]))
            found.append(circle)
            edges[circle[0]].remove(circle[1])
        else:
            return found
