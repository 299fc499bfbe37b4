"""Bots under keepers, on hosts of their own. A bot is its keeper; its worker has many lives, each with a diary."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from support.diaries import DiaryReader, Json
from support.hosts import HostedBot, Scene
from support.mutants import module
from support.nursery import Child
from support.watched import DIARIES, Process

from cluster_lock import clock
from cluster_lock.lease.guard import EXIT_GUARD
from cluster_lock.testing.servers.children import spawn
from cluster_lock.testing.telegram import SimulatorControl

STALL_LIMIT = "4.5s"
"""Longer than a lease: what a blocked loop hears of renewals is seen only then."""


class Life(Process):
    """One process of a worker, by its diary."""

    @property
    def runs(self) -> bool:
        return Path(f"/proc/{worker_pid(self.client)}").exists()

    @property
    def ended(self) -> float | None:
        """Its last word, if it is over: the diary is all that is known, so nothing later is held against it."""
        return None if self.runs else max((event["at"] for event in self.events()), default=0.0)


class KeptBot(HostedBot):
    """`child` is the keeper; `client`, `now` and what follows from it are the worker's latest life's."""

    def __init__(self, name: str, host: int, child: Child, diaries: Path) -> None:
        super().__init__(name, host, child, diaries / "none")
        self.diaries = diaries
        self._lives: dict[str, Life] = {}

    @property
    def lives(self) -> list[Life]:
        """In their order."""
        for path in self.diaries.glob(f"{self.name}@*"):
            self._lives.setdefault(path.name, Life(path.name, path))
        lives = sorted(self._lives.values(), key=lambda life: life.started)
        if lives:
            self.client = lives[-1].client
        return lives

    @property
    def now(self) -> Json:
        lives = self.lives
        return lives[-1].now if lives and lives[-1].runs else super().now

    def events(self, kind: str | None = None, since: float = 0.0) -> list[Json]:
        return [event for life in self.lives for event in life.events(kind, since)]

    async def tell(self, telegram: SimulatorControl) -> None:
        for life in self.lives:
            await life.tell(telegram)


class KeptScene(Scene):
    """A scene whose bots have keepers. They cannot be born in the nursery: a keeper starts its worker by the command
    line that it was started with itself."""

    def launch(self, host: int, *, addresses: Sequence[str] | None = None, mutant: str = "") -> HostedBot:
        assert not mutant, "only bots without a keeper can be broken in this way"
        name = f"bot-{len(self.bots) + 1}"
        diaries = self.folder / "diaries"
        diaries.mkdir(exist_ok=True)
        arguments = [*module("bot"), "start", "--app", "support.container_bot:dispatcher", "--restart", "always"]
        more = ["--set", f"lock.stall_limit={STALL_LIMIT}", *self.settings(addresses)]
        wrapper = self.network.hosts[host].wrapper
        log, environ = self.folder / f"{name}.log", self.environ(name, **{DIARIES: str(diaries)})
        child = started([*wrapper, sys.executable, *arguments, *more], environ, log, self.folder)
        bot = KeptBot(name, host, child, diaries)
        self.bots.append(bot)
        return bot


def started(command: Sequence[str], environ: Mapping[str, str], log: Path, folder: Path) -> Child:
    """A program, as the nursery would give it."""
    program = shutil.which(command[0])
    assert program is not None
    with log.open("ab") as output:
        process = spawn([program, *command[1:]], output, environ=environ, folder=folder)
    child = Child(process.pid, log)
    threading.Thread(target=lambda: child.has_ended(process.wait(), clock.now()), daemon=True).start()
    return child


def worker_pid(client: str) -> int:
    return int(client.rpartition("#")[2])


def send(client: str, number: int) -> None:
    """A signal to the worker of this name, if it is there: another fault of the round may have ended it."""
    with suppress(ProcessLookupError):
        os.kill(worker_pid(client), number)


def lives_of(bot: HostedBot) -> list[tuple[DiaryReader, float | None, int | None]]:
    """Each life of it: its diary, its end, its code. That of a worker its keeper alone knows, but for the guard's,
    which says so before it ends the process."""
    if isinstance(bot, KeptBot):
        said = bot.child.output
        return [(life, life.ended, _code(life, said)) for life in bot.lives]
    return [(bot, bot.child.ended_at, bot.child.returncode)]


def keepers(scene: Scene, since: float) -> list[Json]:
    """Those that ended since then."""
    kept = [bot for bot in scene.bots if isinstance(bot, KeptBot)]
    ends = [(bot.name, bot.child.ended_at, bot.child.returncode) for bot in kept]
    return [{"name": name, "at": at, "code": code} for name, at, code in ends if at is not None and at > since]


def _code(life: Life, said: str) -> int | None:
    word = f"process {worker_pid(life.client)} ends now (exit {EXIT_GUARD})"
    return EXIT_GUARD if word in said else None
