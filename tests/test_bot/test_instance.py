"""`python -m bot status` and `stop`: about the instance that runs on this host."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.aio import run, until
from support.bot_process import TOKEN, BotProcess, environment
from support.nursery import Nursery

from cluster_lock.testing.telegram import TelegramSimulator

pytestmark = pytest.mark.process

BOT_ID = int(TOKEN.partition(":")[0])

Command = Callable[..., BotProcess]


@pytest.fixture
def command(nursery: Nursery, tmp_path: Path) -> Command:
    """Runs `python -m bot ...` on one state directory."""
    (tmp_path / "work").mkdir()

    def begin(*arguments: str) -> BotProcess:
        environ = environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN)
        return BotProcess(*arguments, folder=tmp_path / "work", environ=environ, nursery=nursery)

    return begin


def started(command: Command, simulator: TelegramSimulator) -> BotProcess:
    return command("start", "--in-process", "--set", f"telegram.api={simulator.url}", "--set", "health=127.0.0.1:0")


async def told(command: Command, *arguments: str) -> tuple[int, dict[str, Any]]:
    """What `status --json` says, and its code."""
    with command("status", "--json", *arguments) as process:
        code = await asyncio.to_thread(process.end)
        return code, json.loads(process.output)


def test_from_the_start_to_the_stop(command: Command) -> None:
    """`status` tells a leader with its process and its health, `stop` ends it in good order, and then `status` says
    that it does not run, with code 3."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            code, before = await told(command)
            assert (code, before["status"]) == (3, "not running")
            with started(command, simulator) as bot:
                await asyncio.to_thread(bot.wait_for, "polling, fencing token")
                code, found = await told(command)
                assert (code, found["status"], found["role"], found["pid"]) == (0, "running", "leader", bot.pid)
                assert found["health"].startswith("http://127.0.0.1:")
                with command("stop") as stop:
                    assert await asyncio.to_thread(stop.end) == 0
                    assert f"asked process {bot.pid} to stop" in stop.output
                    assert "it has ended after" in stop.output
                assert await asyncio.to_thread(bot.end) == 0
                assert "lock released" in bot.output
            assert (await told(command))[0] == 3
            with command("stop") as stop:
                assert await asyncio.to_thread(stop.end) == 0
                assert "does not run here" in stop.output

    run(main(), timeout=100)


def test_a_crash_leaves_nothing_to_remove(command: Command) -> None:
    """After a kill -9 `status` says that it crashed, `stop` touches no other process, and the next start runs."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            with started(command, simulator) as bot:
                await asyncio.to_thread(bot.wait_for, "polling, fencing token")
                bot.signal(signal.SIGKILL)
                assert await asyncio.to_thread(bot.end) == -signal.SIGKILL
            code, found = await told(command)
            assert (code, found["status"]) == (3, "not running")
            assert "crash" in found["last"]
            with started(command, simulator) as again:
                await asyncio.to_thread(again.wait_for, "polling, fencing token")

    run(main(), timeout=100)


def test_a_stopped_process_is_stuck(command: Command) -> None:
    """A process that is there and answers nothing is called stuck, with code 1; `stop` says that it still runs."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            with started(command, simulator) as bot:
                await asyncio.to_thread(bot.wait_for, "polling, fencing token")
                bot.signal(signal.SIGSTOP)
                code, found = await told(command)
                assert (code, found["status"]) == (1, "stuck")
                with command("stop", "--timeout", "0.2") as stop:
                    assert await asyncio.to_thread(stop.end) == 1
                    assert f"kill -9 {bot.pid}" in stop.output
                bot.signal(signal.SIGCONT)
                await until(lambda: "stepping down" in bot.output or "stopping" in bot.output, timeout=20)

    run(main(), timeout=100)


@pytest.mark.timeout(200)
def test_a_restart_costs_a_hand_over(tmp_path: Path) -> None:
    """`start --detach` runs in the background; `restart` has a successor stand by before it asks the old process to
    hand over, so that no update is lost or comes twice and nobody sees two pollers; `stop` ends the successor."""

    async def main() -> None:
        async with TelegramSimulator(strict=True) as simulator:
            environ = environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN)
            options = ("--set", f"telegram.api={simulator.url}", "--set", "health=off")

            async def bot(*arguments: str) -> str:
                with BotProcess(*arguments, folder=tmp_path, environ=environ) as process:
                    code = await asyncio.to_thread(process.end, 150)
                    assert code == 0, process.output
                    return process.output

            started = await bot("start", "--detach", *options)
            try:
                await until(lambda: bool(simulator.oracle.polls()), timeout=60)
                simulator.push(BOT_ID, text="/help")
                restarted = await bot("restart", *options)
                simulator.push(BOT_ID, text="/help")
                await until(lambda: len(simulator.calls("sendMessage")) == 2, timeout=20)
                first, second = (int(text.split("process ")[1].split()[0]) for text in (started, restarted))
                assert f"asking process {first} to hand over" in restarted
                [change] = simulator.oracle.changes()
                assert change.gap_ms < 1000
            finally:
                await bot("stop")
            report = simulator.oracle.report()
            assert (report.pending, report.overlapping_polls, report.conflicts_live) == (0, 0, 0)
            assert len(simulator.calls("sendMessage")) == 2
            assert first != second

    run(main(), timeout=180)
