"""The command as a whole: its help, its exit codes, completion in a shell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import CHECKOUT

from cluster_lock import errors
from cluster_lock.cli import main
from cluster_lock.lease.guard import EXIT_GUARD


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code
    return capsys.readouterr().out


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`cluster-lock --help` has one table of exit codes, and each code that an error of ours leads to is in it."""
    table = printed(capsys, "--help").partition("exit codes:")[2]
    told = {int(code) for code in re.findall(r"^ +(\d+) ", table, re.MULTILINE)}
    ours = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ClusterLockError)
    ]
    assert {error.exit_code for error in ours} | {0, 1, 2, EXIT_GUARD} <= told


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sta", {"status"}),
        ("rel", {"release"}),
        ("step-down --t", {"--to", "--timeout"}),
        ("bot ", {"start"}),
    ],
)
def test_completion_in_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path, typed: str, offered: set[str]) -> None:
    """What --print-completion prints completes commands, theirs, and options in a real bash."""
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    path = tmp_path / "completion"
    path.write_text(printed(capsys, "--print-completion", "bash"))
    words = ["cluster-lock", *typed.split(" ")]
    shell = f"""
        source {path}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
        $(complete -p cluster-lock | sed 's/.*-F \\([^ ]*\\).*/\\1/') cluster-lock
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run([bash, "-c", shell], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stderr == ""
    assert offered <= set(ended.stdout.split())


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_completion_for_other_shells(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """There is a script for each of the shells that it offers."""
    pytest.importorskip("shtab")
    assert "step-down" in printed(capsys, "--print-completion", shell)


def test_completion_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the library that makes it, the message says what to install."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 78
    assert "pip install shtab" in capsys.readouterr().err


def test_the_help_loads_little() -> None:
    """`cluster-lock --help` loads no client library, no settings, no rich and no shtab."""
    heavy = {"pydantic", "yaml", "aiogram", "aiohttp", "grpc", "consul", "etcd3", "rich", "shtab"}
    program = (
        "import sys\n"
        "from cluster_lock.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(CHECKOUT)},
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "[]"
