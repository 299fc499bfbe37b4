"""Where state is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster_lock.config import load
from cluster_lock.errors import ConfigError
from cluster_lock.host.state_directory import state_directory

linux = pytest.mark.skipif(sys.platform != "linux", reason="each platform has its own folders")


def test_who_says_it_first_wins() -> None:
    """Our own variable over systemd's, of which the first folder counts."""
    environ = {"CLUSTER_LOCK_STATE_DIR": "/ours", "STATE_DIRECTORY": "/systemd:/second", "HOME": "/home/x"}
    assert state_directory(environ) == Path("/ours")
    assert state_directory({**environ, "CLUSTER_LOCK_STATE_DIR": ""}) == Path("/systemd")


@linux
def test_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user keeps state where XDG says, root in /var/lib, and nobody in a temp folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state_directory({"HOME": "/home/x"}) == Path("/home/x/.local/state/cluster-lock")
    assert state_directory({"HOME": "/home/x", "XDG_STATE_HOME": "/xdg"}) == Path("/xdg/cluster-lock")
    relative = {"HOME": "/home/x", "XDG_STATE_HOME": "xdg"}
    assert state_directory(relative) == Path("/home/x/.local/state/cluster-lock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_directory({"HOME": "/root", "XDG_STATE_HOME": "/xdg"}) == Path("/var/lib/cluster-lock")


@linux
def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container's user without a home directory is told which variable to set, where a directory is needed."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="set CLUSTER_LOCK_STATE_DIR"):
        state_directory({})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^file\.directory: this user has no home directory"):
        load(environ={})
    assert load(environ={"CLUSTER_LOCK_BACKEND": "etcd"}).backend == "etcd"
    assert load(environ={"CLUSTER_LOCK_FILE__DIRECTORY": "/x"}).file.directory == Path("/x")


def test_a_relative_directory_is_meant_from_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One configuration names one folder, in whatever folder a process is started: two would be two leaders."""
    (tmp_path / "config.yaml").write_text("file: {directory: ./locks/../held}\n")
    (tmp_path / "elsewhere").mkdir()
    found = set()
    for here, path in ((tmp_path, "config.yaml"), (tmp_path / "elsewhere", "../config.yaml"), (Path("/"), tmp_path)):
        monkeypatch.chdir(here)
        path = tmp_path / "config.yaml" if path == tmp_path else path
        found.add(load(path, environ={"HOME": "/home/x"}).file.directory)
    assert found == {tmp_path / "held"}


@pytest.mark.parametrize(
    ("given", "begin"),
    [
        ({"environ": {"CLUSTER_LOCK_FILE__DIRECTORY": "locks"}}, "CLUSTER_LOCK_FILE__DIRECTORY: "),
        ({"environ": {"CLUSTER_LOCK_STATE_DIR": "state"}}, "CLUSTER_LOCK_STATE_DIR: "),
        ({"environ": {"CLUSTER_LOCK_STATE_DIR": "state", "CLUSTER_LOCK_BACKEND": "etcd"}}, "CLUSTER_LOCK_STATE_DIR: "),
        ({"overrides": {"file.directory": "./locks"}}, "command line: file.directory: "),
    ],
)
def test_a_relative_directory_elsewhere_is_refused(
    given: dict[str, Any], begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no file anchors would mean another folder in another working directory: one sentence says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"must be an absolute path, but is '(\./)?(locks|state)'") as refused:
        load(**{"environ": {"HOME": "/home/x"}, **given})
    assert len(refused.value.problems) == 1
    assert str(refused.value).startswith(begin)


def test_a_relative_dotenv_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of variables is read from the working directory, so it anchors nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CLUSTER_LOCK_STATE_DIR=state\n")
    with pytest.raises(ConfigError, match=r"^\.env:1: CLUSTER_LOCK_STATE_DIR: .*absolute"):
        load(environ={"HOME": "/home/x"})
