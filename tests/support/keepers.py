"""Keepers as real processes: `cluster-lock run`, and workers that need no aiogram."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from cluster_lock import clock
from cluster_lock.keeper.plan import KeeperSpec, handed_over
from cluster_lock.session import Session
from cluster_lock.values import LEADER, Timing

from . import running
from .aio import until
from .backends import Backend
from .mutants import module
from .running import name_of, runs
from .stores import driver_options, open_driver, open_session

TESTS = Path(__file__).parents[1]
FAST = Timing(ttl=3.0, margin=1.0, stop_time=0.5, drain=2.0, cancel_grace=0.5, stall_limit=1.5, invite=2.0)
WORKER = ("-m", "support.small_worker")


class KeeperProcess:
    """One keeper; `output` is what it and its command wrote so far."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self._process, self._log = process, log
        self._seen: set[psutil.Process] = set()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        return self._process.returncode

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            # asyncio's own send_signal() looks whether it has ended, and would take its exit status from `ended`.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def says(self, text: str, *, times: int = 1, timeout: float = 60.0) -> None:
        """Wait until it, or its command, has written `text` so often."""
        try:
            await until(lambda: self.output.count(text) >= times or self.code is not None, timeout=timeout)
        finally:
            assert self.output.count(text) >= times, f"no {text!r} in:\n{self.output}"

    async def ended(self, timeout: float = 60.0) -> int:
        async with asyncio.timeout(timeout):
            return await self._process.wait()

    def below(self) -> list[psutil.Process]:
        """All that runs below it: two inits, the command, and what that started."""
        found = running.below(self.pid)
        self._seen.update(found)
        return found

    async def has_started(self, name: str, *, times: int = 1) -> list[psutil.Process]:
        """Those of this name below it, once there are so many."""
        found: list[psutil.Process] = []

        def enough() -> bool:
            found[:] = (each for each in self.below() if name_of(each) == name)
            return len(found) >= times

        await until(lambda: enough() or self.code is not None)
        assert len(found) >= times, f"no {name} in:\n{self.output}"
        return found

    async def kill(self) -> None:
        """End it and all that was ever seen below it, if that is still there."""
        self.below()
        self.signal(signal.SIGKILL)
        await self.ended()
        running.kill(self._seen)

    def inits(self) -> list[psutil.Process]:
        """Upper and lower."""
        return [each for each in self.below() if name_of(each) == "init"]


async def gone(processes: Sequence[psutil.Process], timeout: float) -> float:
    """Wait until none of them runs any more; how long that took."""
    began = clock.now()
    await until(lambda: not any(runs(each) for each in processes), timeout=timeout)
    return clock.now() - began


class Keepers:
    """Starts keepers that meet in one backend."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.prefix = f"cluster-lock/{secrets.token_hex(4)}/"
        self._folder, self._backend = folder, backend
        self.running: list[KeeperProcess] = []

    async def start(
        self,
        instance: str,
        *command: str,
        lock: str | None = None,
        timing: Timing = FAST,
        restart: str = "never",
        wait: bool = True,
        fail_fast: bool = False,
        health: str = "off",
        core: int | None = None,
        allow_setuid: bool = False,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        stdio: int | None = None,
    ) -> KeeperProcess:
        """A keeper of `command` under `lock`, or, without one, of the worker that `command` is.

        `prefix`: a command that becomes what its arguments say. `stdio`: a terminal instead of /dev/null and the log.
        """
        plan = KeeperSpec(
            backend=self._backend.name,
            options=driver_options(self._backend, self.prefix, timing.request),
            timing=timing,
            instance=instance,
            command=command,
            lock=lock,
            restart=restart,  # type: ignore[arg-type]
            wait=wait,
            fail_fast=fail_fast,
            state_directory=str(self._folder / "state"),
            health=health,
            core=core,
            allow_setuid=allow_setuid,
        )
        number, log = handed_over(plan), self._folder / f"{instance}.log"
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(*prefix, sys.executable, *module("cluster_lock.keeper"), str(number)),
                pass_fds=[number],
                stdin=asyncio.subprocess.DEVNULL if stdio is None else stdio,
                stdout=output if stdio is None else stdio,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "INSTANCE": instance, **(environ or {})},
                cwd=self._folder,
            )
        os.close(number)
        self.running.append(KeeperProcess(process, log))
        return self.running[-1]

    async def lease(self, lock: str) -> str:
        """The id of the lease that holds `lock` now."""
        driver = open_driver(self._backend, self.prefix)
        await driver.open()
        try:
            entry = (await driver.read([LEADER + lock])).entries[LEADER + lock]
        finally:
            await driver.close()
        assert entry.lease is not None
        return entry.lease

    def session(self, instance: str) -> Session:
        """A contender, or an operator, in this process."""
        return open_session(self._backend, self.prefix, instance, FAST)

    async def stands(self, session: Session, key: str) -> bool:
        """Is there something under this key?"""
        return (await session.driver.read([key])).entries[key].record is not None

    async def worker(
        self, instance: str, *arguments: str, restart: str = "never", health: str = "off"
    ) -> KeeperProcess:
        """A keeper of a small worker (`support.small_worker`)."""
        return await self.start(instance, sys.executable, *WORKER, *arguments, restart=restart, health=health)


@asynccontextmanager
async def keepers(folder: Path, backend: Backend | None = None) -> AsyncIterator[Keepers]:
    """On files by default. What still runs at the end is killed, with all below it."""
    it = Keepers(folder, backend or Backend("file", {"directory": str(folder / "locks")}, None))
    try:
        yield it
    finally:
        for each in it.running:
            await each.kill()
