"""`python -m bot status` and `stop`: about the instance that runs on this host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.aio import until
from support.bot_process import TOKEN, BotProcess, environment
from support.nursery import Nursery

from cluster_lock.keeper.slots import slot, successor
from cluster_lock.process import InstanceLock
from cluster_lock.process.instance_lock import process_started
from cluster_lock.telegram.locks import telegram_lock
from cluster_lock.testing.telegram import TelegramSimulator

pytestmark = pytest.mark.process

BOT_ID = int(TOKEN.partition(":")[0])
OTHER_TOKEN = "4343:another-secret-that-is-never-shown"
LOCK = telegram_lock(BOT_ID)

Command = Callable[..., BotProcess]


@pytest.fixture
def command(nursery: Nursery, tmp_path: Path) -> Command:
    """Runs `python -m bot ...` on one state directory."""
    (tmp_path / "work").mkdir()

    def begin(*arguments: str, **more: str) -> BotProcess:
        environ = environment(tmp_path / "state", **{"TELEGRAM_BOT_TOKEN": TOKEN, **more})
        return BotProcess(*arguments, folder=tmp_path / "work", environ=environ, nursery=nursery)

    return begin


def started(command: Command, simulator: TelegramSimulator, **environ: str) -> BotProcess:
    settings = ("--set", f"telegram.api={simulator.url}", "--set", "health=127.0.0.1:0")
    return command("start", "--in-process", *settings, **environ)


async def told(command: Command, *arguments: str, **environ: str) -> tuple[int, dict[str, Any]]:
    """What `status --json` says, and its code."""
    with command("status", "--json", *arguments, **environ) as process:
        code = await asyncio.to_thread(process.end)
        return code, json.loads(process.output)


async def test_from_the_start_to_the_stop(command: Command) -> None:
    """`status` tells a leader with its process and its health, `stop` ends it in good order, and then `status` says
    that it does not run, with code 3."""
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


async def test_two_bots_of_one_instance(command: Command, tmp_path: Path) -> None:
    """Two programs of one instance name, each with its own bot, run side by side. The commands mean the bot of the
    token; without one they ask which is meant, and mean the one that is left."""
    async with TelegramSimulator() as simulator:
        other = {"TELEGRAM_BOT_TOKEN": OTHER_TOKEN}
        with started(command, simulator) as first, started(command, simulator, **other) as second:
            for bot in (first, second):
                await asyncio.to_thread(bot.wait_for, "polling, fencing token")
            with started(command, simulator) as again:
                assert await asyncio.to_thread(again.end) == 73
                assert f"instance {socket.gethostname()!r} of {LOCK} is already running" in again.output
            assert (await told(command))[1]["pid"] == first.pid
            assert (await told(command, **other))[1]["pid"] == second.pid
            with command("status", TELEGRAM_BOT_TOKEN="") as status:
                assert await asyncio.to_thread(status.end) == 78
                assert f"({LOCK}, telegram/{OTHER_TOKEN.partition(':')[0]}): say which" in status.output
            with command("stop") as stop:
                assert await asyncio.to_thread(stop.end) == 0
            assert await asyncio.to_thread(first.end) == 0
            assert (await told(command, TELEGRAM_BOT_TOKEN=""))[1]["pid"] == second.pid
            with command("stop", TELEGRAM_BOT_TOKEN="") as stop:
                assert await asyncio.to_thread(stop.end) == 0
            assert await asyncio.to_thread(second.end) == 0


def test_a_process_of_the_version_before(command: Command, tmp_path: Path) -> None:
    """What holds the name of the instance alone, as version 0.1 did, is found where nobody holds the bot's."""
    with InstanceLock(socket.gethostname(), tmp_path / "state"):
        assert asyncio.run(told(command))[1]["pid"] == os.getpid()
        with slot(socket.gethostname(), LOCK, tmp_path / "state") as lock:
            assert asyncio.run(told(command))[1]["lock_file"] == str(lock.path)


def test_a_host_that_was_renamed(command: Command, tmp_path: Path) -> None:
    """An instance has the host's name by default. Where none of this name runs, `status` and `stop` say which do."""
    with slot("its-name-before", LOCK, tmp_path / "state"):
        code, found = asyncio.run(told(command))
        assert (code, found["instances"]) == (3, "here run 'its-name-before': --instance NAME")
        with command("stop") as stop:
            assert stop.end() == 3
            assert "does not run here (here run 'its-name-before': --instance NAME)" in stop.output


async def test_a_crash_leaves_nothing_to_remove(command: Command) -> None:
    """After a kill -9 `status` says that it crashed, `stop` touches no other process, and the next start runs."""
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


async def test_a_stopped_process_is_stuck(command: Command) -> None:
    """A process that is there and answers nothing is called stuck, with code 1; `stop` says that it still runs."""
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
            await until(lambda: "stepping down" in bot.output or "stopping" in bot.output)


async def test_a_restart_costs_a_hand_over(tmp_path: Path) -> None:
    """`start --detach` runs in the background; `restart` has a successor stand by before it asks the old process to
    hand over, so that no update is lost or comes twice and nobody sees two pollers, and the leader's record has the
    address of its health page; `stop` ends the successor."""
    async with TelegramSimulator(strict=True) as simulator:
        environ = environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN)
        with socket.create_server(("127.0.0.1", 0)) as free:
            page = f"127.0.0.1:{free.getsockname()[1]}"
        options = ("--set", f"telegram.api={simulator.url}", "--set", f"health={page}")

        async def bot(*arguments: str) -> str:
            with BotProcess(*arguments, folder=tmp_path, environ=environ) as process:
                code = await asyncio.to_thread(process.end, 150)
                assert code == 0, process.output
                return process.output

        started = await bot("start", "--detach", *options)
        try:
            await until(lambda: bool(simulator.oracle.polls()))
            simulator.push(BOT_ID, text="/help")
            restarted = await bot("restart", *options)
            simulator.push(BOT_ID, text="/help")
            await until(lambda: len(simulator.calls("sendMessage")) == 2)
            first, second = (int(text.split("process ")[1].split()[0]) for text in (started, restarted))
            assert f"asking process {first} to hand over" in restarted
            records = [file.read_text() for file in (tmp_path / "state").rglob("*") if "leader" in file.name]
            assert any(f'"pid": {second}' in record and f'"http://{page}' in record for record in records), records
            assert simulator.oracle.changes()
        finally:
            await bot("stop")
        report = simulator.oracle.report()
        assert (report.pending, report.overlapping_polls, report.conflicts_live) == (0, 0, 0)
        assert len(simulator.calls("sendMessage")) == 2
        assert first != second


def here(tmp_path: Path, *arguments: str) -> BotProcess:
    """A command that starts others: by the command line that it was given itself."""
    environ = environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN)
    return BotProcess(*arguments, folder=tmp_path / "work", environ=environ)


def long_restart(tmp_path: Path) -> BotProcess:
    """A restart whose successor will not be ready: its import waits for what nobody writes."""
    os.mkfifo(tmp_path / "work" / "never")
    (tmp_path / "work" / "waiting.py").write_text("open('never').read()")
    return here(tmp_path, "restart", "--app", "waiting:dispatcher", "--set", "health=off")


async def successor_here(tmp_path: Path) -> int:
    """The process that is to take the place, as soon as it says that there is one."""
    lock = successor(socket.gethostname(), LOCK, tmp_path / "state")
    await until(lambda: lock.info() is not None)
    info = lock.info()
    assert info is not None
    return info.pid


async def test_a_restart_that_is_interrupted(command: Command, tmp_path: Path) -> None:
    """There is one successor at most: a second restart ends with 73 and says why. Until the hand-over is asked for, the
    end of the command is the end of the successor too, and the one that runs is left alone."""
    async with TelegramSimulator() as simulator:
        with started(command, simulator) as bot:
            await asyncio.to_thread(bot.wait_for, "polling, fencing token")
            with long_restart(tmp_path) as first:
                successor = await successor_here(tmp_path)
                with here(tmp_path, "restart", "--set", "health=off") as second:
                    assert await asyncio.to_thread(second.end) == 73
                    assert f"being restarted already: process {successor} stands by" in second.output
                first.signal(signal.SIGTERM)
                assert await asyncio.to_thread(first.end) == 128 + signal.SIGTERM
                assert "interrupted" in first.output
                assert process_started(successor) is None
            code, found = await told(command)
            assert (code, found["pid"], "successor" in found) == (0, bot.pid, False)


async def test_a_successor_that_was_left_alone(command: Command, tmp_path: Path) -> None:
    """After a kill -9 of `restart` its successor stands by still: `status` names it, and `stop` ends it as well."""
    async with TelegramSimulator() as simulator:
        with started(command, simulator) as bot:
            await asyncio.to_thread(bot.wait_for, "polling, fencing token")
            with long_restart(tmp_path) as restart:
                successor = await successor_here(tmp_path)
                restart.signal(signal.SIGKILL)
                await asyncio.to_thread(restart.end)
            try:
                code, found = await told(command)
                assert (code, found["pid"], found["successor_pid"]) == (0, bot.pid, successor)
            finally:
                with command("stop") as stop:
                    assert await asyncio.to_thread(stop.end) == 0
            assert f"asked process {successor}, which was to take its place, to stop" in stop.output
            assert f"asked process {bot.pid} to stop" in stop.output
            assert process_started(successor) is None
            assert await asyncio.to_thread(bot.end) == 0
        assert (await told(command))[0] == 3


@pytest.mark.parametrize("more", [(), ("--in-process",)], ids=["keeper", "in-process"])
def test_a_start_in_the_background_that_fails(more: tuple[str, ...], tmp_path: Path) -> None:
    """`start --detach` of a bot that cannot be imported ends with that bot's code and shows its last words, which stand
    in a log of that bot alone: another one may run under this instance's name."""
    (tmp_path / "work").mkdir()
    with here(tmp_path, "start", "--detach", "--app", "nosuch:thing", "--set", "health=off", *more) as bot:
        assert bot.end() == 78
        assert "there is no module nosuch" in bot.output
        assert "runs in the background" not in bot.output
    assert [log.name for log in (tmp_path / "state" / "logs").iterdir()] == [
        f"{socket.gethostname()}+telegram%2F{BOT_ID}.log"
    ]


def test_an_instance_that_could_not_say_who_it_is(command: Command, tmp_path: Path) -> None:
    """Where nothing could be written, `status` and `stop` still say that the instance runs, for its lock is held;
    `stop` ends with 1."""
    state = tmp_path / "state"
    with slot(socket.gethostname(), LOCK, state) as lock:
        pass
    lock.path.with_suffix(".new").mkdir()  # where the particulars would be written, as on a full disk
    with lock:
        assert lock.info() is None
        code, found = asyncio.run(told(command))
        assert (code, found["status"]) == (0, "running")
        assert "has not said which it is" in found["process"]
        with command("stop") as stop:
            assert stop.end() == 1
            assert "runs, but its process has not said which it is" in stop.output
    assert asyncio.run(told(command))[0] == 3
