"""`python -m chaos.soak`: bots have traffic and hand over again and again, and nothing else befalls them. All must be
well as after any round, and nothing may grow: memory, descriptors, threads, tasks, leases in the store. 0 if so, else
1."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.hosts import HostedBot, Hosts
from support.nursery import Nursery

from cluster_lock import clock

from .backends import BACKENDS
from .checker import check
from .evidence import keep
from .ground import Ground
from .kept import KeptScene, worker_pid
from .nemesis import Choice
from .one_round import Round

ROUND, HAND_OVER_EVERY = 24.0, 4.0
"""Seconds. Between two rounds the bots are idle for a moment, so that what they need then can be compared."""
GROWTH = 3.0
"""MiB that may come with the last half: pieces that an allocator keeps."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one process; `tasks` only of a worker."""

    mib: float
    descriptors: int
    threads: int
    tasks: int = 0

    @classmethod
    def of(cls, pid: int, tasks: int = 0) -> Footprint:
        home = Path("/proc", str(pid))
        pages = int((home / "statm").read_text().split()[1])
        mib = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        return cls(mib, len(list((home / "fd").iterdir())), len(list((home / "task").iterdir())), tasks)

    def __str__(self) -> str:
        tasks = f", {self.tasks} tasks" if self.tasks else ""
        return f"{self.mib} MiB, {self.descriptors} descriptors, {self.threads} threads{tasks}"

    def __add__(self, other: Footprint) -> Footprint:
        """Of both together."""
        return Footprint(
            round(self.mib + other.mib, 1),
            self.descriptors + other.descriptors,
            self.threads + other.threads,
            self.tasks + other.tasks,
        )

    def has_grown(self, since: Footprint, processes: int) -> bool:
        """Of so many processes together. In each a request or a timer more or less may be under way at the moment of
        looking."""
        return (
            self.mib - since.mib > GROWTH * processes
            or self.descriptors > since.descriptors + processes + 1
            or self.threads > since.threads + processes
            or self.tasks > since.tasks + processes + 3
        )


Size = dict[str, Footprint]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__)
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="etcd35")
    parser.add_argument("--hours", type=float, default=0.5, help="at least four rounds of half a minute")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="for the evidence")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        Nursery(Path(folder)) as nursery,
        Hosts(options.backend, nursery) as hosts,
    ):
        return 0 if asyncio.run(soak(hosts, options.hours * 3600, options.folder)) else 1


async def soak(hosts: Hosts, seconds: float, folder: Path) -> bool:
    """Was everything well, and is it flat?"""
    sizes: list[Size] = []
    leases: list[int] = []
    async with hosts.scene(kind=KeptScene) as scene:
        await scene.start(3)
        ground, until = Ground(hosts, scene), clock.now() + seconds
        operator = await ground.operator()
        while len(sizes) < 4 or clock.now() < until:
            last = len(sizes) >= 3 and clock.now() + ROUND > until
            history = await Round(ground, len(sizes), plan(), last=False, stubborn=False).run()
            verdict = check(history)
            sizes.append({name: one for bot in ground.bots for name, one in size_of(bot)})
            leases.append(await asyncio.to_thread(operator.leases))
            done = [fault for fault in history.faults if not fault.detail]
            print(f"{hosts.backend}: {len(done)} hand-overs, {leases[-1]} leases")
            print("\n".join(f"    {name}: {one}" for name, one in sizes[-1].items()), flush=True)
            for finding in verdict.violations:
                print(f"    {finding.check}: {finding.words}")
            if verdict.violations or history.stray:
                print(f"    {history.stray} see {keep(folder, history, verdict, ground)}")
                return False
            if last:
                break
    return is_flat(sizes, leases)


def plan() -> list[Choice]:
    """Hand-overs for the time of a round."""
    count = int(ROUND / HAND_OVER_EVERY)
    return [Choice("asked to step down", "leader", 1 + HAND_OVER_EVERY * number, 0.0) for number in range(count)]


def size_of(bot: HostedBot) -> list[tuple[str, Footprint]]:
    """The keeper and its worker."""
    tasks = bot.events("size")[-1]["tasks"]
    keeper, worker = Footprint.of(bot.child.pid), Footprint.of(worker_pid(bot.client), tasks)
    return [(f"keeper of {bot.name}", keeper), (bot.client, worker)]


def is_flat(sizes: Sequence[Size], leases: Sequence[int]) -> bool:
    """From the middle to the end, of all together: who leads has more of everything, and it is somebody else each time.
    Of the leases, each one."""
    middle, end = sizes[len(sizes) // 2 - 1], sizes[-1]
    grown = [f"{name} was not there all the time" for name in middle.keys() ^ end.keys()]
    both = middle.keys() & end.keys()
    before, now = (sum((size[name] for name in both), Footprint(0, 0, 0)) for size in (middle, end))
    if now.has_grown(before, len(both)):
        grown.append(f"all together: {before} -> {now}")
    if len(set(leases)) > 1:
        grown.append(f"leases in the store: {leases}")
    print("\n".join([*grown, "GROWS" if grown else "flat"]))
    return not grown


if __name__ == "__main__":
    sys.exit(main())
