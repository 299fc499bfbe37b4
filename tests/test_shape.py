"""The shape of the code: what may import what, what is loaded when, and what stands nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support.shape import ROOMS, circles, modules, upward

import cluster_lock

pytestmark = pytest.mark.slow

ROOT = Path(cluster_lock.__file__).parent

HOUSE = modules(ROOT)


def test_every_module_has_its_place() -> None:
    """Each room of the library stands in the list, and at the root there is only what everybody needs."""
    assert {module.room for module in HOUSE} == {*ROOMS, "__init__"}
    assert len(list(ROOT.glob("*.py"))) <= 9


def test_imports_run_downward() -> None:
    """No module imports one that stands in a room above it."""
    assert upward(HOUSE) == []


def test_no_circle() -> None:
    """No modules import each other, in no room: each can be read, and understood, after those that it imports."""
    assert circles(HOUSE) == []


def test_what_is_looked_at(tmp_path: Path) -> None:
    """An import counts wherever it stands and however it is written: late, for types, relative, through a package."""
    for name, text in {
        "__init__.py": "",
        "clock.py": "def late():\n    import cluster_lock.cli.main\n",
        "cli/__init__.py": "from .main import run\n",
        "cli/main.py": "from .other import x\nfrom cluster_lock import clock\n",
        "cli/other.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import main\n",
        "cli/third.py": "from cluster_lock.cli import run\nfrom .. import clock\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    house = modules(tmp_path)
    assert upward(house) == ["clock imports cli.main"]
    assert sorted(sorted(circle) for circle in circles(house)) == [["cli.main", "cli.other"], ["cli.main", "clock"]]


def test_drivers_know_no_sibling() -> None:
    """A driver imports what all drivers share and its own parts, never another driver; and nobody else imports its
    parts, nor names one in a text for an import."""
    drivers = {path.name for path in (ROOT / "drivers").iterdir() if path.is_dir()} - {"__pycache__", "shared"}
    for module in HOUSE:
        home = module.path.relative_to(ROOT).parts[:2]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                of, _, part = (node.module or "").removeprefix("cluster_lock.drivers.").partition(".")
                assert of not in drivers or home == ("drivers", of) or not (part or home[0] == "drivers"), module
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and home[0] != "drivers":
                of, dot, _ = node.value.removeprefix("cluster_lock.drivers.").partition(".")
                assert not (node.value.startswith("cluster_lock.drivers.") and of in drivers and dot), module


def test_the_library_never_imports_the_bot() -> None:
    """Nothing in the wheel needs the application."""
    for module in HOUSE:
        for node in ast.walk(module.tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "bot" for name in names), module


def test_one_clock() -> None:
    """Only clock.py reads a clock, and the init, which is a program of its own."""
    forbidden = re.compile(r"\btime\.(time|monotonic|perf_counter|clock_gettime)\(|\bdatetime\.(now|utcnow|today)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (module.path for module in HOUSE)
        if path.name != "clock.py" and path.parts[-2:] != ("keeper", "init.py")  # which loads nothing of the library
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_nothing_prints_but_the_command() -> None:
    """The library prints nothing; the commands may, and the simulator as a program."""
    found = [
        f"{module}:{node.lineno}"
        for module in HOUSE
        if module.room not in ("cli", "testing")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_nothing_is_swallowed() -> None:
    """No handler catches everything and does nothing."""
    found = []
    for module in HOUSE:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"all"}
                )
                empty = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
                if names & {"all", "Exception", "BaseException"} and empty:
                    found.append(f"{module}:{node.lineno}")
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
    own: set[str] = set()
    for node in (node for module in HOUSE for node in ast.walk(module.tree)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                own.add(node.name)
            case ast.Name(ctx=ast.Store()):
                own.add(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                own.add(node.attr)
    found = [
        f"{module}:{getattr(node, 'lineno', 0)} {name}"
        for module in HOUSE
        for node in ast.walk(module.tree)
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
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


def test_names_that_moved_go_on_working() -> None:
    """Telegram's errors are still had from where all errors stood."""
    from cluster_lock import errors
    from cluster_lock.telegram.errors import ConflictPersists, RequestUnguarded, TelegramTokenRefused

    for moved in (ConflictPersists, RequestUnguarded, TelegramTokenRefused):
        assert getattr(errors, moved.__name__) is moved
    with pytest.raises(AttributeError, match="no_such_name"):
        errors.no_such_name  # type: ignore[attr-defined]  # noqa: B018


PUBLIC = {
    "cluster_lock": (
        "ClusterLockError Driver Election Grant Hold Leadership Lock LockLost Origin Role Session Term TermExecutor"
        " Timing __version__ load_settings open_driver open_election open_session"
    ),
    "cluster_lock.aiogram": (
        "Conflict ConflictPersists ConflictRules CrashedTooOften CutOff LeaseGate Poller PollerState PollingManager"
        " RequestUnguarded Rules TelegramTimes TelegramTokenRefused UpdateUnreadable bot_from lock_name run_polling"
        " start_polling"
    ),
    "cluster_lock.driver": "Certified Driver Inspectable",
    "cluster_lock.process": "BotLock InstanceInfo InstanceLock ShutdownManager force_release_lock",
    "cluster_lock.testing": (
        "ConsulServer DriverConformance EtcdServer FaultyDriver RedisServer ServerMissing SimulatorControl"
        " TelegramSimulator"
    ),
    "cluster_lock.testing.servers": (
        "Cluster ConsulCluster ConsulServer EtcdCluster EtcdServer PgBouncer PostgresServer RedisServer Server"
        " ServerFailed ServerMissing"
        " ServerTLS find_tool"
    ),
    "cluster_lock.testing.telegram": (
        "BotKey BotRef CLIENT_HEADER Call Change Clock Delivery Fault LoopClock ManualClock Oracle Poll Report Run"
        " SENT_HEADER SeenPoll SimulatorControl SimulatorError TERM_HEADER TelegramSimulator Update"
    ),
}
"""All that is public. A change here is a change of the interface; `tests/typing/api.py` shows how it is used."""


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package: str) -> None:
    """The public names are these, and each can be had."""
    if package == "cluster_lock.aiogram":
        pytest.importorskip("aiogram")
    module = import_module(package)
    assert sorted(module.__all__) == PUBLIC[package].split()
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert not hasattr(module, "no_such_name")


VERBS = {
    "Certified": "certificates server_certificates",
    "Driver": (
        "acquire announce backend close grant_lease open read release renew revoke scan traits transfer wait_changed"
        " withdraw"
    ),
    "Inspectable": "inspect lease_times nodes",
}


@pytest.mark.parametrize("contract", VERBS)
def test_the_contract_of_drivers(contract: str) -> None:
    """A driver has these verbs; one more would break every driver that somebody else wrote."""
    members = vars(getattr(import_module("cluster_lock.driver"), contract))
    assert sorted(name for name in members if not name.startswith("_")) == VERBS[contract].split()
