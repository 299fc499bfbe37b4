"""What a person types first: the command alone, `--help`, a word that is missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import CHECKOUT

from bot.__main__ import main as bot_main
from cluster_lock import cli
from cluster_lock.cli import main
from cluster_lock.cli.options import Parser
from cluster_lock.cli.run import name_of

TOKEN = "123456:SECRETAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def commands(parser: argparse.ArgumentParser) -> Iterator[Parser]:
    """Each command that does something, of this parser and of those below it."""
    below = [
        each
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for each in action.choices.values()
    ]
    for each in below:
        yield from commands(each)
    if not below:
        assert isinstance(parser, Parser)
        yield parser


@pytest.mark.parametrize("words", [[], ["bot"]])
def test_a_command_alone_prints_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`cluster-lock` and `cluster-lock bot` say what there is."""
    assert main(words) == 0
    assert "COMMAND" in capsys.readouterr().out
    assert bot_main([]) == 0


def test_every_help_has_examples_that_are_right() -> None:
    """The help of each command ends with examples, and each of them is understood."""
    found = list(commands(cli.parser()))
    assert len(found) > 10
    for command in found:
        examples = command.format_help().partition("\nexamples:\n")[2].splitlines()
        assert examples, command.prog
        for example in examples:
            assert cli.parser().parse_args(shlex.split(re.split(r" [>|]", example)[0])[1:])


def test_the_module_is_the_command() -> None:
    """`python -m cluster_lock` is `cluster-lock`."""
    said = subprocess.check_output([sys.executable, "-m", "cluster_lock", "--version"], cwd=CHECKOUT, text=True)
    assert said.startswith("cluster-lock ")


@pytest.mark.parametrize("words", [["run"], ["run", "--"], ["run", "--lock", "", "--", "true"]])
def test_a_wrong_run_is_a_wrong_argument(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`run` without a program, and with an empty name for the lock, ends with 2 and says what is missing."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert re.search("which program|must be a name", capsys.readouterr().err)


def test_the_lock_of_a_command_is_made_of_all_of_it() -> None:
    """Two programs of one interpreter have two locks; the same one has the same, wherever that interpreter lies, and
    whatever secret it is given."""
    one = name_of(["python", "x.py", "--token=42:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
    assert re.fullmatch(r"run/python-[0-9a-f]{8}", one)
    assert one == name_of(["/opt/venv/bin/python", "x.py", "--token=43:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"])
    assert len({one, name_of(["python", "y.py"]), name_of(["python", "x.py"]), name_of(["python", "x", ".py"])}) == 4


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the logs of instance web-1, whose bot is that of the token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CLUSTER_LOCK_INSTANCE", "web-1")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    (tmp_path / "state" / "logs").mkdir(parents=True, mode=0o700)
    return tmp_path / "state" / "logs"


@pytest.mark.parametrize("token", [True, False])
def test_bot_logs_shows_the_end_of_the_log(
    token: bool, logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last lines of the bot's own log, without its secrets; without a token that of the only one."""
    if not token:
        monkeypatch.delenv("TELEGRAM_BOT_TOKEN")
    (logs / "web-1+telegram%2F123456.log").write_text(f"one\ntwo\n{TOKEN} three\n")
    (logs / "web-2+telegram%2F123456.log").write_text("another\n")
    assert main(["bot", "logs", "--lines", "2"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"two\n\S+ three\n", said)
    assert "SECRET" not in said


def test_bot_logs_without_a_log(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing ran in the background it says so, and where else to look."""
    assert main(["bot", "logs"]) == 1
    assert "journalctl" in capsys.readouterr().err


def test_bot_logs_follows_a_log_that_begins_anew(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written meanwhile is shown, also when the log was cut."""
    path = logs / "web-1+telegram%2F123456.log"
    path.write_text("one\ntwo\n")
    written = iter(["one\ntwo\nthree\n", "four\n"])

    def pause() -> None:
        """Things are written while it waits; then it is Ctrl-C."""
        text = next(written, None)
        if text is None:
            raise KeyboardInterrupt
        path.write_text(text)

    monkeypatch.setattr("cluster_lock.cli.bot_logs._pause", pause)
    assert main(["bot", "logs", "-f", "-n", "1"]) == 130
    assert capsys.readouterr().out == "two\nthree\nfour\n"


def test_an_error_is_a_line_of_json_where_logs_are(tmp_path: Path) -> None:
    """With --log-format json nothing but objects is written, also where wrong settings end it."""
    words = ["run", "--log-format", "json", "--set", "nosuch=1", "--", "true"]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-m", "cluster_lock", *words],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    (said,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout, said["level"]) == (78, "", "CRITICAL")
    assert said["message"].startswith("command line: nosuch: unknown key")
