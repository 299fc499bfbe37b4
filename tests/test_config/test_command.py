"""`cluster-lock config` and `cluster-lock --version`, as a person calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import CHECKOUT

from cluster_lock import __version__
from cluster_lock.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version tells the version of the distribution."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cluster-lock {__version__}\n"


def test_the_example_and_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """--example prints config.yaml, --schema a JSON schema; neither needs settings that are right."""
    Path("config.yaml").write_text("nonsense")
    assert main(["config", "--example"]) == 0
    assert capsys.readouterr().out == (CHECKOUT / "config.yaml").read_text(encoding="utf-8")
    assert main(["config", "--schema"]) == 0
    assert "lock" in json.loads(capsys.readouterr().out)["properties"]


def test_the_effective_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The effective settings are printed with where each came from, secrets masked, options of the command first."""
    Path("mine.yaml").write_text("prefix: a/\nlock:\n  ttl: 20s\n")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "42:hunter2")
    arguments = ["--config", "mine.yaml", "--instance", "web-1", "--set", "lock.ttl=30s", "--backend", "file"]
    assert main(["config", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "hunter2" not in printed
    for line in (
        "backend: file  # command line",
        "instance: web-1  # command line",
        "prefix: a/  # mine.yaml:1",
        "  ttl: 30s  # command line",
        "  margin: 3s",
        "  token: '**********'  # TELEGRAM_BOT_TOKEN",
    ):
        assert line in printed.splitlines()
    assert "etcd:" not in printed


def test_wrong_settings_end_with_78(capsys: pytest.CaptureFixture[str]) -> None:
    """Every problem is one line on stderr, nothing is on stdout, and the exit code says configuration."""
    Path("config.yaml").write_text("backend: etdc\nlock: {ttl: 1}\n")
    assert main(["config"]) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(":")[1] for line in printed.err.splitlines()] == ["1", "2"]


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that is none ends with usage and 2, as command lines do."""
    for arguments in (["nonsense"], ["config", "--set", "lock.ttl"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert "must be KEY=VALUE" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_a_reader_that_goes_away() -> None:
    """`cluster-lock config --schema | true` ends without a traceback."""
    command = f"{sys.executable} -m cluster_lock.cli config --schema | true"
    ended = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(CHECKOUT)}
    )
    assert ended.stderr == ""


def test_the_library_loads_no_settings() -> None:
    """`import cluster_lock`, and asking for --version, load neither pydantic nor yaml."""
    program = (
        "import sys, cluster_lock, cluster_lock.process, cluster_lock.lease.guard\n"
        "from cluster_lock.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'pydantic', 'yaml', 'aiogram', 'aiohttp', 'grpc', 'consul'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(CHECKOUT)}
    )
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr
