"""`bot start --detach` where its log cannot be written: one sentence, before anything is started."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_lock.cli import main

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
