"""`bot start --detach` where its log cannot be written, and `bot restart` and `bot stop` of what is not there: one
sentence, before anything is started."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_lock.cli import main
from cluster_lock.keeper.slots import slot

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no --detach on Windows")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "42:SECRETSECRET")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("nothing is to be started"))
    return tmp_path / "state"


def said(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert main(["bot", "start", "--app", "nosuch:dp", "--detach"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_full_disk(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot that could not say what is wrong is not started: the disk is named, and the code is 69."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0))
    line = said(capsys, 69)
    assert line.startswith(f"no space left on the disk of {state / 'logs'}")


def test_a_log_that_cannot_be_opened(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is another user's, or a link, is named, and the code is 77."""
    (state / "logs").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    (state / "logs" / f"{socket.gethostname()}+telegram%2F42.log").symlink_to("/dev/null")
    assert "is a symbolic link" in said(capsys, 77)


RESTART = ("bot", "restart", "--app", "nosuch:dp")


def test_a_restart_of_what_a_container_ends_with(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor of a container's main process would end together with it: nothing is started, and the sentence says
    what to use."""
    monkeypatch.setattr("cluster_lock.process.container.ends_container", lambda pid: pid == os.getpid())
    with slot("web-1", "telegram/42", state):
        assert main([*RESTART, "--instance", "web-1"]) == 78
    assert "Use `docker compose restart SERVICE`" in capsys.readouterr().err


def test_a_restart_that_names_no_instance(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the bot runs under another name than the host's, a restart that names none starts no further one."""
    with slot("web-1", "telegram/42", state):
        assert main([*RESTART]) == 78
    assert "here run 'web-1': --instance NAME). Nothing was started" in capsys.readouterr().err


@pytest.mark.parametrize("runs", ["telegram/43", None], ids=["another bot", "nothing"])
def test_a_restart_beside_other_bots(state: Path, monkeypatch: pytest.MonkeyPatch, runs: str | None) -> None:
    """Where this bot does not run at all, `restart` is a start."""
    started: list[object] = []

    def start(settings: object) -> int:
        started.append(settings)
        return 0

    monkeypatch.setattr("cluster_lock.cli.detached.start", start)
    with slot("web-1", runs, state) if runs else nullcontext():
        assert main([*RESTART]) == 0
        assert main([*RESTART, "--instance", "web-2"]) == 0
    assert len(started) == 2


def test_a_stop_that_names_no_instance(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the bot runs under another name than the host's, a stop that names none has stopped nothing, which is 3;
    one that names an instance has nothing to do, which is 0."""
    with slot("web-1", "telegram/42", state):
        assert main(["bot", "stop"]) == 3
        assert "here run 'web-1': --instance NAME). Nothing was stopped" in capsys.readouterr().err
        assert main(["bot", "stop", "--instance", "web-2"]) == 0
    assert main(["bot", "stop"]) == 0
