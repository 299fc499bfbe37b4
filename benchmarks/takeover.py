"""How long nobody polls when a leader's worker is killed, and when its keeper is stopped in good order.

    python benchmarks/takeover.py [--times 5] [--backend etcd consul]

Two bots with keepers and a real server on this machine. A gap runs from the signal to the next leader's first
getUpdates as the simulator saw it. Whoever was ended stands by again before the next round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cluster_lock import clock
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.testing.telegram import TelegramSimulator

TOKEN = "4242:only-the-simulator-knows-it"
PATIENCE = 120.0


class Instance:
    """One keeper with its bot."""

    def __init__(self, name: str, folder: Path, arguments: list[str]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._arguments, self._folder = arguments, folder

    async def start(self) -> None:
        more = {"TELEGRAM_BOT_TOKEN": TOKEN, "CLUSTER_LOCK_STATE_DIR": str(self._folder / "state")}
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot", "start", "--instance", self.name, "--set", "health=off"),
                *self._arguments,
                env={**os.environ, **more},
                stdout=log,
                stderr=log,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    async def says(self, text: str, times: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.output.count(text) < times:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)

    def worker(self) -> int:
        """The bot's own process: below the keeper and two inits."""
        pid = self.process.pid
        for _ in range(3):
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return pid


async def measure(backend: str, times: int, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        server: Any = stack.enter_context(EtcdServer() if backend == "etcd" else ConsulServer())
        where = f"etcd.endpoints={','.join(server.endpoints)}" if backend == "etcd" else f"consul.url={server.url}"
        telegram = await stack.enter_async_context(TelegramSimulator())
        arguments = ["--backend", backend, "--set", where, "--set", f"telegram.api={telegram.url}"]
        leader, other = (Instance(name, folder, arguments) for name in ("a", "b"))
        for instance in (leader, other):
            await instance.start()
            stack.callback(_kill, instance)
        await leader.says("is @", 1)
        await other.says("is @", 1)
        await asyncio.wait(
            [asyncio.ensure_future(leader.says(": polling", 1)), asyncio.ensure_future(other.says(": polling", 1))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if ": polling" in other.output:
            leader, other = other, leader
        for kind in ("kill -9 of the worker", "SIGTERM to the keeper"):
            gaps = []
            for _ in range(times):
                await other.says("waiting, held by", other.output.count("waiting, held by") or 1)
                began = clock.now()
                if kind.startswith("kill"):
                    os.kill(leader.worker(), signal.SIGKILL)
                else:
                    leader.process.terminate()
                gaps.append(1000 * (await first_poll(telegram, began) - began))
                waits = leader.output.count("waiting, held by")
                if not kind.startswith("kill"):
                    await leader.process.wait()
                    await leader.start()
                await leader.says("waiting, held by", waits + 1)
                leader, other = other, leader
            shown = ", ".join(f"{gap:.0f}" for gap in sorted(gaps))
            print(f"{backend}: {kind}: median {statistics.median(gaps):.0f} ms of {times}: {shown}", flush=True)


async def first_poll(telegram: TelegramSimulator, since: float) -> float:
    """When the first getUpdates after `since` arrived."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for seen in telegram.oracle.polls():
                if seen.poll.arrived > since:
                    return seen.poll.arrived
            await asyncio.sleep(0.005)


def _kill(instance: Instance) -> None:
    if instance.process.returncode is None:
        instance.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--backend", nargs="+", default=["etcd", "consul"], choices=["etcd", "consul"])
    options = parser.parse_args()
    for backend in options.backend:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(backend, options.times, Path(folder)))


if __name__ == "__main__":
    main()
