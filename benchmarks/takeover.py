"""How long nobody polls when a leader crashes, and when it hands over at 200 updates a second.

    python benchmarks/takeover.py [--times 5] [--backend etcd consul] [--fault worker_is_killed ...]

Two bots with keepers and a real server on this machine, with default times. From the fault to the next leader's first
getUpdates, as the simulator saw it; for a hand-over also from the old leader's last poll, because until then it works.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster_lock.testing.servers import ConsulServer, EtcdServer
from cluster_lock.values import Timing

# What runs bots with keepers and judges them is the tests' own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.backends import Backend
from support.kept import CHATS, KeptBots, kept_bots

HAND_OVERS = ("keeper_is_asked", "leader_steps_down", "leader_is_restarted")
CRASHES = ("worker_is_killed", "worker_is_stopped", "all_is_killed")
RATE = {**dict.fromkeys(HAND_OVERS, 200), **dict.fromkeys(CRASHES, 20)}


async def measure(bots: KeptBots, fault: str, times: int) -> None:
    """Print the times of one fault."""
    leader, took = await bots.settled(), []
    changes, before = len(await bots.telegram.changes()), (await bots.judge()).duplicated
    await bots.traffic(RATE[fault], CHATS)
    for _ in range(times):
        took.append(1000 * await getattr(bots, fault)(leader))
        leader = await bots.settled()
    report = await bots.judge()
    between = [change.gap_ms for change in (await bots.telegram.changes())[changes:]]
    print(f"{fault}: {_shown(took)}" + (f"\n    between polls: {_shown(between)}" if fault in HAND_OVERS else ""))
    print(f"    lost {report.lost}, overlaps {report.overlapping_polls}, duplicated {report.duplicated - before}")


def _shown(took: Sequence[float]) -> str:
    ordered = ", ".join(f"{each:.0f}" for each in sorted(took))
    return f"median {statistics.median(took):.0f} ms of {len(took)}: {ordered}"


async def on(name: str, faults: Sequence[str], times: int) -> None:
    with EtcdServer() if name == "etcd" else ConsulServer() as server, tempfile.TemporaryDirectory() as folder:
        etcd = isinstance(server, EtcdServer)
        section = {"endpoints": server.endpoints} if isinstance(server, EtcdServer) else {"url": server.url}
        print(f"{name} ({'release 3.5' if etcd else 'one server'})", flush=True)
        async with kept_bots(Path(folder), Backend(name, section, server), Timing()) as bots:
            for fault in faults:
                await measure(bots, fault, times)
                sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--backend", nargs="+", default=["etcd", "consul"], choices=["etcd", "consul"])
    faults = (*HAND_OVERS[:2], *CRASHES, HAND_OVERS[2])
    parser.add_argument("--fault", nargs="+", default=faults, choices=faults)
    options = parser.parse_args()
    for name in options.backend:
        asyncio.run(on(name, options.fault, options.times))


if __name__ == "__main__":
    main()
