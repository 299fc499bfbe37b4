"""Restore a backend from a snapshot while instances lead and wait, again and again, at all points of a hand-over.

    python -m benchmarks.restore_drills [--times 20] [etcd | etcd-bump | consul]...

Each drill is on a server of its own. It fails if a token is led on that is not above all before it, or if nobody leads
for longer than a lease may last, `settle` and 5 s, and not everybody has said why (exit code 78).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import statistics
import sys
from pathlib import Path

from cluster_lock.driver import Driver
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing

# The drill is the tests' own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.drills import POINTS, Outcome, drill

BUMP = 1_000_000_000
KINDS = ("etcd", "etcd-bump", "consul")


async def one(kind: str, point: str, hands: int) -> Outcome:
    server = ConsulServer(fast=True) if kind == "consul" else EtcdServer(release="3.5", fast=True)
    with server:

        def make(timing: Timing) -> Driver:
            if isinstance(server, ConsulServer):
                return ConsulDriver([server.url], request_timeout=timing.request)
            return EtcdDriver(server.endpoints, request_timeout=timing.request)

        return await drill(server, make, point, hands=hands, bump=BUMP if kind == "etcd-bump" else 0)


def drills(kind: str, times: int) -> bool:
    """Print how `times` drills went; False if one failed."""
    seconds, led, failed = [], 0, 0
    for number, point in zip(range(times), itertools.cycle(POINTS), strict=False):
        hands = 1 + number // len(POINTS) % 3
        try:
            outcome = asyncio.run(one(kind, point, hands))
            outcome.check()
        except AssertionError as error:
            failed += 1
            print(f"  {point}, {hands} hand-overs: FAILED: {error}", flush=True)
            continue
        seconds.append(outcome.seconds)
        led += outcome.leads
        verdict = "led" if outcome.leads else "all said 78"
        print(f"  {point}, {hands} hand-overs: {verdict}, {outcome.seconds:.1f} s, tokens {outcome.tokens}", flush=True)
    times_taken = f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
    print(f"{kind}: {times} drills, {led} led on, {times - led - failed} said 78, {failed} failed; {times_taken}")
    return not failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all without one")
    parser.add_argument("--times", type=int, default=20, metavar="N", help="drills of each kind (20)")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.CRITICAL)
    passed = [drills(kind, arguments.times) for kind in arguments.kinds or KINDS]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
