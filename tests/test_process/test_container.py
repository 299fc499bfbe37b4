"""Which process a container ends with, by what /proc says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster_lock.process.container import ends_container


def proc(folder: Path, init: str, *processes: tuple[int, int, int]) -> Path:
    """A /proc with this process 1, and others: number, parent, start."""
    for pid, parent, started in ((1, 0, 1), *processes):
        (folder / str(pid)).mkdir()
        (folder / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} {' '.join(['0'] * 17)} {started} 0 0")
    (folder / "1/comm").write_text(f"{init}\n")
    return folder


@pytest.mark.parametrize("init", ["docker-init", "tini", "catatonit"])
def test_what_an_init_was_given_to_run(tmp_path: Path, init: str) -> None:
    """The first child of a container's init is what the container ends with; what was left to it later is not, though
    its number may be smaller, and neither is a child of the first one."""
    where = proc(tmp_path, init, (7, 1, 50), (4, 1, 90), (9, 7, 60))
    assert [ends_container(pid, where) for pid in (7, 4, 9)] == [True, False, False]


def test_process_1(tmp_path: Path) -> None:
    """Process 1 itself is, whatever it is called."""
    assert ends_container(1, proc(tmp_path, "cluster-lock"))


@pytest.mark.parametrize("init", ["systemd", "init", "supervisord"])
def test_a_host(tmp_path: Path, init: str) -> None:
    """Children of what goes on without them are not, and where there is no /proc nothing is known."""
    assert not ends_container(7, proc(tmp_path, init, (7, 1, 50)))
    assert not ends_container(7, tmp_path / "nothing")


def test_this_process() -> None:
    """The tests can end without taking their host along."""
    assert os.getpid() == 1 or not ends_container(os.getpid())
