from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.backends import Backend
from support.company import TIMING, Company

from cluster_lock.values import Timing

MARKS = {
    "file": "file",
    "etcd34": "etcd",
    "etcd35": "etcd",
    "consul": "consul",
    "redis": "redis",
    "postgres18": "postgres",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "test_cli" in item.path.parts and (mark := MARKS.get(str(parameters.get("backend")))):
            item.add_marker(mark)


@pytest.fixture
def prefix() -> str:
    return f"cluster-lock/{secrets.token_hex(4)}/"


@pytest.fixture
def timing() -> Timing:
    """Of members and commands; parametrize it for others."""
    return TIMING


@pytest.fixture
def company(
    backend: Backend, prefix: str, timing: Timing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Company]:
    """Nobody yet, on each backend in turn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    with Company(backend, prefix, tmp_path, timing) as company:
        yield company
