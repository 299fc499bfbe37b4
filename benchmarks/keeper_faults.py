"""Faults of keepers, their inits and their commands, one after the other: do two commands ever work at once, and is
anything left of one?

    python benchmarks/keeper_faults.py [--faults 100] [--seed 1]

Three keepers of one lock (file backend, ttl 3 s) on this machine. Each command writes its fencing token every 30 ms,
from a child and from a grandchild in a session of its own. A fault hits the leader; then what is gone is started
again. Two terms overlap if one writes after the next has begun. The same seed brings the same faults.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import psutil

from cluster_lock import clock

# What runs keepers is the tests' own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.aio import until
from support.keepers import KeeperProcess, Keepers, keepers
from support.running import command_of, kill, runs

NAMES = ("a", "b", "c")
WRITES = (
    'writes() { while :; do read now _ < /proc/uptime; echo "$now $CLUSTER_LOCK_FENCING_TOKEN $INSTANCE" >> log;'
    " sleep 0.03; done; }; "
)
COMMAND = f"{WRITES} writes & setsid sh -c '{WRITES} writes' & wait"
KILLED = ("keeper", "upper", "lower", "command", "writers")
"""What is killed, alone and together."""
STOPPED = ("keeper", "upper", "lower", "command")
ENDED_WITHIN = 60.0
"""Seconds, on a busy machine."""
FROZEN = 1.0
SHELLS = 5
"""Two inits, the command, and two that write."""


class Faults:
    def __init__(self, them: Keepers, folder: Path, seed: int) -> None:
        self._them, self._log, self._random = them, folder / "log", random.Random(seed)
        self._keepers: dict[str, KeeperProcess] = {}
        self.left_over: list[str] = []
        self.done: collections.Counter[str] = collections.Counter()

    async def start(self) -> None:
        """Those that are not there."""
        for name in NAMES:
            if name not in self._keepers or self._keepers[name].code is not None:
                self._keepers[name] = await self._them.start(name, "sh", "-c", COMMAND, lock="x")

    def leader(self) -> tuple[int, str]:
        """The last token that was written, and by whose command."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return max((_read(line)[1:] for line in lines), default=(0, ""))

    async def fault(self) -> None:
        """One fault of the leader, and the end of it."""
        token, name = self.leader()
        keeper = self._keepers[name]
        await until(lambda: len(keeper.below()) >= SHELLS, timeout=ENDED_WITHIN)
        below = keeper.below()
        what = self._random.choice(["kill", "kill", "kill", "stop", "signal", "signal to all", "freeze"])
        parts = _parts(keeper, below)
        if what == "kill":
            chosen = sorted(self._random.sample(KILLED, self._random.randint(1, 3)))
            self._send([pid for part in chosen for pid in parts[part]], signal.SIGKILL)
            what = f"kill {' and '.join(chosen)}"
            if chosen == ["writers"]:  # of no concern to anybody
                self._send(parts["keeper"], signal.SIGTERM)
        elif what == "stop":
            part = self._random.choice(STOPPED)
            self._send(parts[part], signal.SIGSTOP)
            what = f"stop {part}"
            if part != "keeper":  # it is its keeper's to notice nothing, and to end it when it is asked
                self._send(parts["keeper"], signal.SIGTERM)
        elif what == "freeze":
            everybody = [keeper.pid, *(each.pid for each in below)]
            self._send(everybody, signal.SIGSTOP)
            woken = clock.now() + FROZEN
            await until(lambda: clock.now() >= woken)
            self._send(everybody, signal.SIGCONT)
            self._send(parts["keeper"], signal.SIGTERM)
        else:
            number = self._random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
            self._send([keeper.pid, *(each.pid for each in below if what != "signal")], number)
            what = f"{number.name} to {'the keeper' if what == 'signal' else 'all'}"
        self.done[what] += 1
        await self._over(token, keeper, below, what)

    async def _over(self, token: int, keeper: KeeperProcess, below: list[psutil.Process], what: str) -> None:
        try:
            await until(lambda: self.leader()[0] > token, timeout=ENDED_WITHIN)
        except AssertionError as error:
            said = "\n".join(f"{each}:\n{it.output[-1000:]}" for each, it in self._keepers.items())
            raise AssertionError(f"nobody leads after {what} of {keeper.pid}:\n{said}") from error
        try:
            await until(lambda: not any(map(runs, below)), timeout=ENDED_WITHIN)
        except AssertionError:
            left = [command_of(each)[:60] for each in below if runs(each)]
            self.left_over.append(f"{what}: {left}")
            kill(below)
        await keeper.ended(ENDED_WITHIN)
        await self.start()

    def _send(self, pids: list[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # killed with another one

    def overlaps(self) -> list[str]:
        """Terms that worked when the next one had begun."""
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for line in self._log.read_text().splitlines():
            now, token, _ = _read(line)
            first.setdefault(token, now)
            last[token] = now
        tokens = sorted(first)
        pairs = itertools.pairwise(tokens)
        return [f"{last[a] - first[b]:.2f} s of {a} and {b}" for a, b in pairs if last[a] > first[b]]


def _read(line: str) -> tuple[float, int, str]:
    now, token, name = line.split()
    return float(now), int(token), name


def _parts(keeper: KeeperProcess, below: list[psutil.Process]) -> dict[str, list[int]]:
    upper, lower, command, *writers = [each.pid for each in below]
    return {"keeper": [keeper.pid], "upper": [upper], "lower": [lower], "command": [command], "writers": writers[:1]}


async def run(count: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with keepers(Path(folder)) as them:
            faults = Faults(them, Path(folder), seed)
            await faults.start()
            await until(lambda: faults.leader()[0] > 0, timeout=ENDED_WITHIN)
            for _ in range(count):
                await faults.fault()
            overlaps = faults.overlaps()
    print(", ".join(f"{what}: {times}" for what, times in sorted(faults.done.items())))
    print(f"{count} faults, {len(overlaps)} overlaps, {len(faults.left_over)} times something was left")
    for each in (*overlaps, *faults.left_over):
        print(f"    {each}")
    return 1 if overlaps or faults.left_over else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so it would be by all that is started
    return asyncio.run(run(options.faults, options.seed))


if __name__ == "__main__":
    sys.exit(main())
