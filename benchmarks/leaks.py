"""What terms leave behind in a process: memory, descriptors, tasks and threads over thousands of hand-overs.

    python benchmarks/leaks.py [--terms 2000] [--backend file etcd consul]

Two elections in one process give one lock to each other, on a real server. Everything must be flat from the second
quarter to the end: what grows with the number of terms ends a bot that runs for years.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster_lock.driver import Driver
from cluster_lock.drivers import driver_class
from cluster_lock.election import Election, Term
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing

TIMING = Timing(ttl=5.0, margin=1.0, stop_time=0.5, settle=0.05)
LOCK = "leaks"
PATIENCE = 120.0
"""Seconds for a quarter of the terms to come at all."""

GROWTH = 3.0
"""MiB that may come with the last half of the terms: pieces that an allocator keeps. Objects are counted beside."""


@dataclass(frozen=True, slots=True)
class Footprint:
    mib: float
    descriptors: int
    tasks: int
    threads: int
    objects: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
            threading.active_count(),
            len(gc.get_objects()),
        )


class Counted:
    """Terms of two elections that hand over to each other at once."""

    def __init__(self) -> None:
        self.terms = 0
        self._changed = asyncio.Event()

    async def body(self, term: Term) -> None:
        self.terms += 1
        self._changed.set()
        # Nobody may stand by in this very moment: then the term ends without an heir.
        term.step_down("the next one")
        await term.wait_step_down()

    async def reach(self, terms: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.terms < terms:
                self._changed.clear()
                await self._changed.wait()


@contextlib.contextmanager
def drivers(backend: str) -> Iterator[list[Driver]]:
    """Two drivers of one store."""
    common = {"prefix": "leaks/", "request_timeout": TIMING.request}
    make = driver_class(backend)
    if backend == "file":
        with tempfile.TemporaryDirectory() as folder:
            yield [make(directory=Path(folder), **common) for _ in range(2)]
    elif backend == "etcd":
        with EtcdServer() as etcd:
            yield [make(endpoints=etcd.endpoints, **common) for _ in range(2)]
    else:
        with ConsulServer() as consul:
            yield [make(urls=[consul.url], **common) for _ in range(2)]


async def measure(backend: str, pair: list[Driver], terms: int) -> bool:
    """Print the footprint at each quarter; is it flat?"""
    counted, seen = Counted(), []
    async with contextlib.AsyncExitStack() as stack:
        elections = []
        for number, driver in enumerate(pair):
            session = Session(driver, instance=f"leaks-{number}", timing=TIMING, guard=NoGuard())
            elections.append(Election(await stack.enter_async_context(session)))
        leading = [asyncio.ensure_future(election.lead(LOCK, counted.body)) for election in elections]
        try:
            for quarter in range(1, 5):
                await counted.reach(terms * quarter // 4)
                seen.append(Footprint.now())
                print(f"{backend}: after {counted.terms:5} terms: {seen[-1]}", flush=True)
        finally:
            for election in elections:
                election.stop()
            await asyncio.gather(*leading)
    half, end = seen[1], seen[3]
    # A request or a timer more or less may be under way at the moment of looking.
    flat = end.mib - half.mib <= GROWTH and end.descriptors <= half.descriptors + 2 and end.tasks <= half.tasks + 4
    flat = flat and end.threads <= half.threads and end.objects <= half.objects * 1.01
    print(f"{backend}: {'flat' if flat else 'GROWS'}")
    return flat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", type=int, default=2000)
    parser.add_argument("--backend", nargs="+", default=["file", "etcd", "consul"], choices=["file", "etcd", "consul"])
    options = parser.parse_args()
    flat = True
    for backend in options.backend:
        with drivers(backend) as pair:
            flat = asyncio.run(measure(backend, pair, options.terms)) and flat
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
