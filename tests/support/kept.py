"""Two bots with keepers on this host, as `cluster-lock bot start` runs them, and a Telegram that judges them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cluster_lock import clock
from cluster_lock.testing.telegram import SimulatorControl
from cluster_lock.values import STANDBY, Record, Timing

from .aio import PATIENCE
from .backends import Backend
from .bot_process import environment
from .company import write_config
from .stores import open_driver
from .watched import DIARIES, Process, Watched

NAMES = ("a", "b")
BOT_ID = 4242
LOCK = f"telegram/{BOT_ID}"
APP = ("--app", "support.container_bot:dispatcher")
CHATS = range(1, 21)
"""So many that 200 updates a second are far from what handlers of 10 ms, one at a time in a chat, can do."""


class KeptBots(Watched):
    """Made by `kept_bots`. Each fault ends with the seconds from it to the next leader's first getUpdates, and with two
    instances that run again."""

    def __init__(self, folder: Path, backend: Backend, timing: Timing, telegram_url: str) -> None:
        super().__init__(folder / "diaries", BOT_ID, NAMES, SimulatorControl(telegram_url))
        self.diaries.mkdir()
        self.prefix = f"cluster-lock/{secrets.token_hex(4)}/"
        more = {"health": "off", "telegram": {"api": telegram_url}}
        self._config = write_config(folder / "config.yaml", backend, self.prefix, timing, **more)
        self._backend, self._folder = backend, folder
        self._environ = environment(
            folder / "state", TELEGRAM_BOT_TOKEN=f"{BOT_ID}:for-the-simulator-only", **{DIARIES: str(self.diaries)}
        )
        self._keepers: dict[str, asyncio.subprocess.Process] = {}
        self._detached: set[str] = set()

    # -- the instances

    async def start(self, name: str) -> None:
        """The instance of this name. It is there when it says so in its diary."""
        self._keepers[name] = await self._command("bot", "start", *APP, "--instance", name, "--restart", "always")

    async def say(self, *arguments: str) -> None:
        """Give one of the commands, which must end with 0."""
        command = await self._command(*arguments)
        async with asyncio.timeout(PATIENCE):
            assert await command.wait() == 0, self.said

    @property
    def said(self) -> str:
        """All that anybody of them printed."""
        return (self._folder / "log").read_text(errors="replace")

    async def _command(self, *arguments: str) -> asyncio.subprocess.Process:
        with (self._folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cluster_lock.cli", *arguments, "--config", str(self._config)),
                env={**self._environ, "CLUSTER_LOCK_INSTANCE": _instance(arguments)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def end(self) -> None:
        """Kill what is left of them: a keeper takes its bot along."""
        for name in self._detached:
            await self.say("bot", "stop", "--instance", name)
        for keeper in self._keepers.values():
            with contextlib.suppress(ProcessLookupError):
                keeper.kill()
            await keeper.wait()

    async def _standby_is_known(self) -> bool:
        driver = open_driver(self._backend, self.prefix, 2.0)
        await driver.open()
        try:
            records = [Record.from_bytes(entry.record or b"") for entry in await driver.scan(STANDBY)]
        finally:
            await driver.close()
        return any(record is not None and LOCK in record.names for record in records)

    # -- faults

    async def worker_is_killed(self, leader: Process) -> float:
        """kill -9 of the bot's own process."""
        began = clock.now()
        os.kill(_pid(leader), signal.SIGKILL)
        self.died(leader)
        return await self.taken_over(leader, began)

    async def all_is_killed(self, leader: Process) -> float:
        """kill -9 of keeper and bot: nobody releases anything."""
        keeper = self._keepers[_name(leader)]
        began = clock.now()
        for pid in (keeper.pid, _pid(leader)):
            os.kill(pid, signal.SIGKILL)
        self.died(leader)
        took = await self.taken_over(leader, began)
        await keeper.wait()
        await self.start(_name(leader))
        return took

    async def worker_is_stopped(self, leader: Process) -> float:
        """SIGSTOP of the bot's own process."""
        began = clock.now()
        os.kill(_pid(leader), signal.SIGSTOP)
        await self.telegram.frozen(leader.client, since=began)
        return await self.taken_over(leader, began)

    async def keeper_is_asked(self, leader: Process) -> float:
        """SIGTERM to the keeper."""
        keeper = self._keepers[_name(leader)]
        began = clock.now()
        keeper.terminate()
        took = await self.taken_over(leader, began)
        assert await keeper.wait() == 0, self.said
        await self.start(_name(leader))
        return took

    async def leader_steps_down(self, leader: Process) -> float:
        """`cluster-lock step-down --to` the other one."""
        began = clock.now()
        [other] = set(NAMES) - {_name(leader)}
        await self.say("step-down", LOCK, "--to", other)
        return await self.taken_over(leader, began)

    async def leader_is_restarted(self, leader: Process) -> float:
        """`cluster-lock bot restart`. The successor runs in the background; no other fault may follow."""
        began, name = clock.now(), _name(leader)
        self._detached.add(name)
        await self.say("bot", "restart", *APP, "--instance", name)
        return await self.taken_over(leader, began)


def _name(process: Process) -> str:
    return process.service


def _pid(process: Process) -> int:
    return int(process.client.partition("#")[2])


def _instance(arguments: tuple[str, ...]) -> str:
    return arguments[arguments.index("--instance") + 1] if "--instance" in arguments else "operator"


@asynccontextmanager
async def kept_bots(folder: Path, backend: Backend, timing: Timing) -> AsyncIterator[KeptBots]:
    """Both run; one leads when `settled()` is over."""
    # A process of its own: what it sees of an end has to be of that moment, however busy this one is.
    telegram = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster_lock.testing.telegram"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert telegram.stdout is not None
        async with asyncio.timeout(PATIENCE):
            url = json.loads(await telegram.stdout.readline())["url"]
        bots = KeptBots(folder, backend, timing, url)
        try:
            for name in NAMES:
                await bots.start(name)
            yield bots
        except AssertionError as error:
            raise AssertionError(f"{error}\n{bots.said}") from error
        finally:
            await bots.end()
            await bots.telegram.close()
    finally:
        telegram.kill()
        await telegram.wait()
