"""The shape of the code: what may import what, what is loaded when, and what stands nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster_lock

pytestmark = pytest.mark.slow

ROOT = Path(cluster_lock.__file__).parent

ROOMS = [
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
    "host",
    "observer",
    "driver",
    "values",
    "clock",
    "aio",
    "errors",
    "version",
]
"""From the top down: a room imports those below it, and none imports each other. Imports for types count, too."""

RANK = {name: rank for rank, name in enumerate(ROOMS)}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """Each module of the library, with the room it belongs to."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path, ast.parse(path.read_text(encoding="utf-8"))


def imported_rooms(path: Path, tree: ast.Module) -> Iterator[str]:
    """The rooms of the library that a module imports, also those that it imports late."""
    package = ["cluster_lock", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            if full[:1] == ["cluster_lock"]:
                yield from full[1:2] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cluster_lock."))


def test_every_module_has_its_place() -> None:
    """Each room of the library stands in the list, and at the root there is only what everybody needs."""
    assert {room for room, _, _ in modules()} == {*ROOMS, "__init__"}
    assert len(list(ROOT.glob("*.py"))) <= 9


def test_imports_run_downward() -> None:
    """No module imports one that stands above it."""
    upward = [
        f"{path.relative_to(ROOT)} imports {target}"
        for room, path, tree in modules()
        if room != "__init__"  # it names what is public, late
        for target in imported_rooms(path, tree)
        if RANK[target] < RANK[room]
    ]
    assert upward == []


def test_drivers_know_no_sibling() -> None:
    """A driver imports what all drivers share and its own parts, never another driver; and nobody else imports its
    parts."""
    drivers = {path.name for path in (ROOT / "drivers").iterdir() if path.is_dir()} - {"__pycache__", "shared"}
    for path in sorted(ROOT.rglob("*.py")):
        home = path.relative_to(ROOT).parts[:2]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                of, _, part = (node.module or "").removeprefix("cluster_lock.drivers.").partition(".")
                assert of not in drivers or home == ("drivers", of) or not (part or home[0] == "drivers"), path


def test_the_library_never_imports_the_bot() -> None:
    """Nothing in the wheel needs the application."""
    for _, path, tree in modules():
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "bot" for name in names), path


def test_one_clock() -> None:
    """Only clock.py reads a clock, and the init, which is a program of its own."""
    forbidden = re.compile(r"\btime\.(time|monotonic|perf_counter|clock_gettime)\(|\bdatetime\.(now|utcnow|today)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for _, path, _ in modules()
        if path.name != "clock.py" and path.parts[-2:] != ("keeper", "init.py")  # which loads nothing of the library
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_nothing_prints_but_the_command() -> None:
    """The library prints nothing; the commands may, and the simulator as a program."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room, path, tree in modules()
        if room not in ("cli", "testing")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_nothing_is_swallowed() -> None:
    """No handler catches everything and does nothing."""
    found = []
    for _, path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"all"}
                )
                empty = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
                if names & {"all", "Exception", "BaseException"} and empty:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


PUBLIC_ALL_THE_SAME = {"_exit"}
"""Documented names that look private: os._exit, and the same of the C library."""


def is_private(name: str) -> bool:
    return (
        name.startswith("_") and not name.endswith("__") and name.strip("_") != "" and name not in PUBLIC_ALL_THE_SAME
    )


def test_no_library_is_used_by_its_private_names() -> None:
    """Every private name that the code takes from an object, also by `getattr` or from a parent class, or imports from
    elsewhere, is its own: what a library calls private, its next release renames."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
    own: set[str] = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                own.add(node.name)
            case ast.Name(ctx=ast.Store()):
                own.add(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                own.add(node.attr)
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        for name in foreign_names(node)
        if is_private(name) and name not in own
    ]
    assert found == []


def foreign_names(node: ast.AST) -> Iterator[str]:
    """The names that a node of the code takes from somewhere else."""
    match node:
        case ast.Attribute(attr=name):
            yield name
        case ast.Call(
            func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, ast.Constant(value=str(name)), *_]
        ):
            yield name
        case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] not in ("cluster_lock", "__future__"):
            yield from (*module.split("."), *(alias.name for alias in node.names))
        case ast.Import():
            yield from (part for alias in node.names for part in alias.name.split("."))


def loaded_by(statement: str) -> set[str]:
    """The modules that a bare interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    ["import cluster_lock", "import cluster_lock.testing", "from cluster_lock import Session, Election, Timing"],
)
def test_importing_loads_no_library(statement: str) -> None:
    """Importing the package, its tests' package, or its core loads no client library, no aiogram, no pydantic, no
    yaml."""
    heavy = {"pydantic", "yaml", "aiohttp", "aiogram", "grpc", "etcd3", "consul", "pytest", "rich"}
    assert loaded_by(statement) & heavy == set()


def test_public_names() -> None:
    """The public names are these and each can be had; a change here is a change of the interface."""
    assert sorted(cluster_lock.__all__) == [
        "ClusterLockError",
        "Driver",
        "Election",
        "Grant",
        "Hold",
        "Leadership",
        "Lock",
        "LockLost",
        "Origin",
        "Role",
        "Session",
        "Term",
        "TermExecutor",
        "Timing",
        "__version__",
        "load_settings",
        "open_driver",
        "open_election",
        "open_session",
    ]
    for name in cluster_lock.__all__:
        assert getattr(cluster_lock, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        cluster_lock.no_such_name  # noqa: B018
