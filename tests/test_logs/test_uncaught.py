"""What nobody catches leaves through the log, without a secret."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.aio import PATIENCE, run
from support.bot_process import TOKEN, environment

from cluster_lock.cli import run_command
from cluster_lock.errors import ConfigError
from cluster_lock.testing.telegram import TelegramSimulator

WAYS = ("thread", "task", "finalizer", "startup")


@pytest.mark.process
@pytest.mark.parametrize("style", ["text", "json"])
def test_the_token_is_in_nothing_that_ends_the_bot(tmp_path: Path, style: str) -> None:
    """A startup hook that raises with the token in its text: exit code 1, and the token is in no line; nor is it when a
    thread, a task or a finalizer fails. For a machine each is one object."""

    async def main() -> subprocess.CompletedProcess[str]:
        async with TelegramSimulator() as simulator:
            arguments = ["start", "--in-process", "--app", "support.failing_bot:dispatcher", "--log-format", style]
            options = [f"telegram.api={simulator.url}", "health=off"]
            arguments += [part for option in options for part in ("--set", option)]
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "bot", *arguments],
                cwd=tmp_path,
                env=environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )

    ended = run(main(), timeout=PATIENCE)
    assert ended.returncode == 1, ended.stderr
    assert TOKEN.partition(":")[2] not in ended.stdout + ended.stderr
    assert [ended.stderr.count(f"RuntimeError: {way}: ") for way in WAYS] == [1, 1, 1, 1], ended.stderr
    if style == "json":
        said = [json.loads(line) for line in ended.stderr.splitlines()]
        levels = [line["level"] for line in said if "exception" in line]
        assert levels == ["CRITICAL", "ERROR", "ERROR", "CRITICAL"]
    else:
        assert "\nTraceback" not in ended.stderr, "indented below its line"


PROGRAM = """
import sys, threading
from cluster_lock.host import logs

logs.configure()

def leave():
    sys.exit("a thread leaves without a word")

thread = threading.Thread(target=leave)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("end", "code", "said"), [("sys.exit(5)", 5, ""), ("raise KeyboardInterrupt", -2, "KeyboardInterrupt")]
)
def test_what_is_no_error_ends_as_ever(end: str, code: int, said: str) -> None:
    """SystemExit and KeyboardInterrupt are not logged, and the exit code is what it always was."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM + end], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == code
    assert ended.stderr.strip().endswith(said)
    assert "cluster_lock" not in ended.stderr
    assert "without a word" not in ended.stderr


def test_an_expected_error_tells_no_token_either(capsys: pytest.CaptureFixture[str]) -> None:
    """A bot that cannot be imported is one line, with the error of its own in it, and no token."""

    def command(_: argparse.Namespace) -> int:
        raise ConfigError(["mybot cannot be imported: https://api.telegram.org/bot123456789:AAexample-Secret/getMe"])

    assert run_command(argparse.Namespace(run=command)) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "/bot***/getMe" in said
    assert "Secret" not in said
