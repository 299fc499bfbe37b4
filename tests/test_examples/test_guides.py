"""docs/guides.md: what it shows runs as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.request import urlopen

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message
from support.aio import in_a_thread
from support.examples import BOT, CHECKOUT, SETTINGS_BEGIN_WITH, TOKEN, answers

from cluster_lock import cli
from cluster_lock.process import BotLock, InstanceLock
from cluster_lock.testing.telegram import TelegramSimulator

GUIDES = (CHECKOUT / "docs" / "guides.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDES, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [line for language, text in BLOCKS if not language for line in text.splitlines()]


class Scheduler:
    """What a bot of the guides has beside it."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def start(self) -> None:
        """Begin; and this program has nothing to wait for but to be stopped."""
        self.did.append("started")
        signal.raise_signal(signal.SIGTERM)

    def shutdown(self) -> None:
        self.did.append("stopped")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and nothing set but where the state is kept."""
    for name in [name for name in os.environ if name.startswith(SETTINGS_BEGIN_WITH)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CLUSTER_LOCK_HEALTH", "off")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "main.py"), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def simulator() -> Iterator[TelegramSimulator]:
    with in_a_thread(TelegramSimulator(strict=True)) as simulator:
        yield simulator


@pytest.fixture
def mybot(simulator: TelegramSimulator, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The user's own module: a bot that answers, and is then asked to stop."""
    module = ModuleType("mybot")
    dispatcher, scheduler = Dispatcher(), Scheduler()

    @dispatcher.message()
    async def echo(message: Message) -> None:
        await message.answer(message.text or "")
        signal.raise_signal(signal.SIGTERM)

    async def on_startup() -> None:
        scheduler.did.append("on_startup")

    session = AiohttpSession(api=TelegramAPIServer.from_base(simulator.url))
    vars(module).update(bot=Bot(TOKEN, session=session), dispatcher=dispatcher)
    vars(module).update(scheduler=scheduler, on_startup=on_startup)
    monkeypatch.setitem(sys.modules, "mybot", module)
    return module


def program(with_: str) -> str:
    """The one program on the page that has this in it, and no earlier one has."""
    return str(next(text for text in PYTHON if with_ in text))


@pytest.mark.parametrize("text", [text for text in PYTHON if "shutdown.wait()" not in text], ids=range(4))
def test_each_program_answers_and_ends(text: str, mybot: ModuleType, simulator: TelegramSimulator) -> None:
    """Each program with a bot handles an update, ends when it is asked to, and has left its locks."""
    with urlopen(f"{simulator.url}/__sim/push", json.dumps({"bot": BOT, "text": "hello"}).encode()) as pushed:
        assert pushed.status == 200
    exec(compile(text, "guides.md", "exec"), {"__name__": "__main__"})
    assert answers(simulator) == ["hello"]
    assert simulator.oracle.report().overlapping_polls == 0
    assert InstanceLock().acquire()
    assert BotLock().acquire()
    if "scheduler" in text:
        assert mybot.scheduler.did == ["on_startup", "stopped"]


def test_the_program_without_a_bot_ends_in_order(mybot: ModuleType) -> None:
    """The scheduler that was started is stopped when SIGTERM comes."""
    exec(compile(program("shutdown.wait()"), "guides.md", "exec"), {"__name__": "__main__"})
    assert mybot.scheduler.did == ["started", "stopped"]


def test_a_program_that_runs_already_is_not_started(mybot: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """While its lock is held the program ends with 73, and the log names the process."""
    with InstanceLock(), pytest.raises(SystemExit) as end:
        exec(compile(PYTHON[0], "guides.md", "exec"), {"__name__": "__main__"})
    assert end.value.code == 73
    assert f"process {os.getpid()} " in caplog.text


def test_each_command_is_one() -> None:
    """Each command line of cluster-lock on the page is understood, and the one of Python runs."""
    ours = [shlex.split(line)[1:] for line in SHELL if line.startswith("cluster-lock ")]
    assert len(ours) == 5
    for words in ours:
        assert cli.parser().parse_args(words)
    [python] = [shlex.split(line) for line in SHELL if line.startswith("python -c ")]
    exec(python[2], {})
