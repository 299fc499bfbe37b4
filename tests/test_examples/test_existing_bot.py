"""docs/examples/existing_bot: one line of a program that exists, and it may run on many servers."""

from __future__ import annotations

import difflib
import signal
from pathlib import Path

import pytest
from support import aio
from support.examples import BOT, EXAMPLES, Stages, answers

from cluster_lock.config import load
from cluster_lock.testing.telegram import TelegramSimulator

FOLDER = EXAMPLES / "existing_bot"


@pytest.mark.process
async def test_one_polls_and_the_others_take_over(stage: Stages) -> None:
    """Of three instances one answers; after its SIGTERM the next does, and after the kill -9 of that the last; each
    update is answered once, and Telegram never sees two of them."""
    async with TelegramSimulator(strict=True) as simulator:
        with stage("existing_bot/main.py", simulator) as it:
            first, *others = await it.start_all("a", "b", "c")
            simulator.push(BOT, text="one")
            await first.says("is handled")
            first.send(signal.SIGTERM)
            assert await first.ended() == 0
            simulator.push(BOT, text="two")
            await aio.until(lambda: any("is handled" in other.output for other in others))
            second, third = sorted(others, key=lambda other: "is handled" not in other.output)
            await third.says(f"waiting, held by {second.instance} on ")
            await aio.until(lambda: simulator.oracle.report().pending == 0)
            second.send(signal.SIGKILL)
            assert await second.ended() == -signal.SIGKILL
            simulator.push(BOT, text="three")
            await third.says("is handled")
            third.send(signal.SIGINT)
            assert await third.ended() == 0
        assert answers(simulator) == ["one", "two", "three"]
        report = simulator.oracle.report()
        assert (report.pending, report.overlapping_polls) == (0, 0)


@pytest.mark.process
async def test_the_synchronous_program_too(stage: Stages) -> None:
    """With run_polling one of two instances answers, and the other after its SIGTERM."""
    async with TelegramSimulator(strict=True) as simulator:
        with stage("existing_bot/main_sync.py", simulator) as it:
            for text, example in zip(("one", "two"), await it.start_all("a", "b"), strict=True):
                simulator.push(BOT, text=text)
                await example.says("is handled")
                example.send(signal.SIGTERM)
                assert await example.ended() == 0
        assert answers(simulator) == ["one", "two"]
        assert simulator.oracle.report().pending == 0


@pytest.mark.process
async def test_before_two_instances_fight(stage: Stages) -> None:
    """Without the change the two instances end each other's polls: what the change is for."""
    async with TelegramSimulator() as simulator:
        with stage("existing_bot/before.py", simulator) as it:
            both = await it.start("a"), await it.start("b")
            for example in both:
                await example.says("TelegramConflictError")
        assert simulator.oracle.report().overlapping_polls > 0


@pytest.mark.parametrize(
    ("before", "after", "call"),
    [
        ("before.py", "main.py", 'await start_polling(dispatcher, bot, config="config.yaml")'),
        ("before_sync.py", "main_sync.py", 'run_polling(dispatcher, bot, config="config.yaml")'),
    ],
)
def test_the_change_is_an_import_and_a_call(before: str, after: str, call: str) -> None:
    """Besides the line that describes it, the program differs from the one before in an import and in one call."""
    old, new = ((FOLDER / name).read_text().splitlines()[1:] for name in (before, after))
    changed = [line for line in difflib.ndiff(old, new) if line[0] in "+-" and line[2:].strip()]
    name = call.removeprefix("await ").partition("(")[0]
    awaited = "await " if call.startswith("await ") else ""
    assert changed == [
        f"+ from cluster_lock.aiogram import {name}",
        f"-     {awaited}dispatcher.{name}(bot)",
        f"+     {call}",
    ]


@pytest.mark.parametrize("choice", ["file", "etcd", "consul"])
def test_each_configuration_that_is_shown_works(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of config.yaml, and those that it offers in comments, are settings that the library takes."""
    monkeypatch.chdir(tmp_path)
    text = (FOLDER / "config.yaml").read_text()
    if choice != "file":
        offered = text.replace("backend: file\n", "").partition(f"# backend: {choice}\n")
        text = offered[1] + offered[2].partition("#\n")[0]
        text = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    file = tmp_path / "config.yaml"
    file.write_text(text)
    settings = load(file, environ={})
    assert settings.backend == choice
    assert settings.origin_of("backend").startswith(str(file))
