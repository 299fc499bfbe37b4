"""Docker's health check of the image: it asks where the instance of the container says that it serves its health."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.health import standby_board

from cluster_lock.health import Board, open_health
from cluster_lock.process import InstanceLock

Health = Callable[[Path], tuple[bool, str]]


@pytest.fixture
def health(checkout: Path) -> Health:
    spec = importlib.util.spec_from_file_location("healthcheck", checkout / "deploy/healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Health = module.health
    return found


@pytest.mark.parametrize("setting", ["127.0.0.1:0", "0.0.0.0:0"])
async def test_it_follows_where_health_is_served(health: Health, tmp_path: Path, setting: str) -> None:
    """Wherever `health` has put it, a standby that could take over is healthy, and who is not ready is not."""
    for board, expected in ((standby_board(), True), (Board("web-1"), False)):
        with InstanceLock("web-1", tmp_path) as lock:
            async with open_health(board, setting) as url:
                lock.say(health=url)
                well, _ = await asyncio.to_thread(health, tmp_path / "instances")
                assert well is expected


def test_without_a_page(health: Health, tmp_path: Path) -> None:
    """Where `health` is off, what counts is whether the instance says that it could take over."""
    with InstanceLock("web-1", tmp_path) as lock:
        assert health(tmp_path / "instances") == (False, "it is starting")
        lock.say()
        assert health(tmp_path / "instances") == (True, "it serves no health")


def test_what_a_crash_left_does_not_count(health: Health, tmp_path: Path) -> None:
    """Of several files the newest counts, which is that of the instance that runs; a successor's does not yet."""
    folder = tmp_path / "instances"
    with InstanceLock("old", tmp_path) as old:
        old.say()
        left = (folder / "old.json").read_bytes()
    with InstanceLock("new", tmp_path), InstanceLock("new+next", tmp_path) as coming:
        (folder / "old.json").write_bytes(left)
        os.utime(folder / "old.json", (1, 1))
        coming.say()
        assert health(folder) == (False, "it is starting")


def test_nobody_there(health: Health, tmp_path: Path) -> None:
    """An address at which nobody listens is an error, which the check takes for not healthy."""
    with InstanceLock("web-1", tmp_path) as lock:
        lock.say(health="http://127.0.0.1:1")
        with pytest.raises(ConnectionRefusedError):
            health(tmp_path / "instances")
