"""The programs of docs/examples as real processes, their output in files."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cluster_lock.testing.telegram import TelegramSimulator

from .aio import PATIENCE, until
from .nursery import Child, Nursery

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples"

BOT = 42
TOKEN = f"{BOT}:TEST-TOKEN-THAT-NOBODY-MAY-SEE"
SETTINGS_BEGIN_WITH = ("CLUSTER_LOCK_", "TELEGRAM_", "POD_NAME")
"""Variables of the person who runs the tests that the examples must not see."""


class Example:
    """One process that runs a program of docs/examples, in the program's own folder."""

    def __init__(self, instance: str, process: Child) -> None:
        self.instance = instance
        self.process = process

    @property
    def output(self) -> str:
        """What it wrote so far, errors too."""
        return self.process.output

    async def says(self, text: str, *, times: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until it has written `text`. AssertionError with all that it wrote if it ends or takes longer."""
        try:
            await until(lambda: self.output.count(text) >= times or self.process.poll() is not None, timeout=timeout)
        finally:
            assert self.output.count(text) >= times, f"no {text!r} in:\n{self.output}"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, timeout: float = PATIENCE) -> int:
        """Wait until it is gone: its exit code, the signal's number below zero if one ended it."""
        await until(lambda: self.process.poll() is not None, timeout=timeout)
        code = self.process.poll()
        assert code is not None
        return code


class Stage:
    """Where the instances of one example meet: a folder for their locks and logs, variables for all of them."""

    def __init__(self, program: str, folder: Path, nursery: Nursery, environ: Mapping[str, str]) -> None:
        self.program = EXAMPLES / program
        self._nursery = nursery
        self._folder = folder
        self.running: list[Example] = []
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_BEGIN_WITH)},
            "CLUSTER_LOCK_STATE_DIR": str(folder / "state"),
            **environ,
        }

    async def start(self, instance: str, *arguments: str) -> Example:
        """Run the program as this instance."""
        process = await asyncio.to_thread(
            self._nursery.start,
            [self.program.name, *arguments],
            {**self._environ, "CLUSTER_LOCK_INSTANCE": instance},
            log=self._folder / f"{instance}.log",
            folder=self.program.parent,
        )
        self.running.append(Example(instance, process))
        return self.running[-1]

    async def start_all(self, *instances: str) -> list[Example]:
        """Run the program as each of these instances, all at once. When one leads and the others wait: the leader,
        then the others."""
        started = [await self.start(instance) for instance in instances]
        await until(lambda: any("leading, term" in example.output for example in started))
        started.sort(key=lambda example: "leading, term" not in example.output)
        for example in started[1:]:
            await example.says(f"waiting, held by {started[0].instance} on ")
        return started


Stages = Callable[..., AbstractContextManager[Stage]]
"""`stage(program, simulator=None, /, **environ)`: a stage for `program`, with the simulator in the place of Telegram.
What still runs at the end is killed."""


def stages(nursery: Nursery, folder: Path) -> Stages:
    """Stages in `folder`."""

    @contextmanager
    def stage(program: str, simulator: TelegramSimulator | None = None, /, **environ: str) -> Iterator[Stage]:
        telegram = {} if simulator is None else {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_API": simulator.url}
        it = Stage(program, folder, nursery, {**telegram, **environ})
        try:
            yield it
        finally:
            for example in it.running:
                example.process.kill()
                example.process.wait(PATIENCE)

    return stage


def answers(simulator: TelegramSimulator) -> list[str]:
    """What the bot said, in order."""
    return [call.arguments["text"] for call in simulator.calls("sendMessage")]
