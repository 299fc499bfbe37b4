"""`python -m chaos`: rounds of faults, each judged. 0 if nothing was found, 1 if something was."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support import wall_clock
from support.hosts import QUICK, QUICK_TIMES, Hosts, Scene
from support.mutants import CHOSEN
from support.nursery import Nursery

from cluster_lock import clock
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.values import Timing

from .backends import BACKENDS
from .checker import Verdict, check
from .evidence import keep
from .ground import Ground
from .history import History
from .kept import KeptScene
from .nemesis import choices, possible
from .one_round import Round
from .replay import ONE_IN, ModelFailed, hindrance, is_modelled, replay
from .results import Results, code_of, summary

ROUND_WITHIN = 300.0
"""Seconds. One that takes longer will not end: each wait in it is shorter."""
ON_ONE_CLUSTER = 10
"""Rounds before the hosts and the store are made anew."""
USUAL_EVERY = 20
"""Seeds: one in so many is a round with the timing that people have, for a minute; the others have a fast one."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="etcd35")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names of faults, with commas")
    parser.add_argument("--mutant", default="", help="break the bots: a name of tests/support/mutants.py")
    parser.add_argument("--kept", action="store_true", help="with a keeper above each bot")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="for the results and the evidence")
    parser.add_argument("--list", action="store_true", help="name the faults that make sense there")
    options = parser.parse_args()
    if options.list:
        print("\n".join(sorted(possible(options.backend, kept=True) | possible(options.backend, kept=False))))
        return 0
    if options.mutant:
        os.environ[CHOSEN] = options.mutant
    if why := hindrance(kept=options.kept):
        print(f"no history is replayed against the model: {why}")
    options.replays = not why
    results = Results(options.folder / "results.jsonl")
    found = 0
    seeds = range(options.seed, options.seed + options.rounds)
    while seeds and not (found and options.until_found):
        done, wrong = some_rounds(options, results, seeds)
        seeds, found = seeds[done:], found + wrong
    print(summary(results.rows([code_of(options.backend)])))
    return 1 if found else 0


def some_rounds(options: argparse.Namespace, results: Results, seeds: range) -> tuple[int, int]:
    """Rounds on one cluster: how many were done, and how many of them had violations."""
    usual = seeds[0] % USUAL_EVERY == 0
    together = 1 if usual else min(ON_ONE_CLUSTER, USUAL_EVERY - seeds[0] % USUAL_EVERY)
    timing = (Timing(), TelegramTimes()) if usual else (QUICK, QUICK_TIMES)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        Nursery(Path(folder), preload=wall_clock.library()) as nursery,
        Hosts(options.backend, nursery) as hosts,
    ):
        return asyncio.run(on_one_ground(options, results, hosts, seeds[:together], *timing))


async def on_one_ground(
    options: argparse.Namespace, results: Results, hosts: Hosts, seeds: range, timing: Timing, times: TelegramTimes
) -> tuple[int, int]:
    """The same, with its bots. What broke may be broken still: so the first violation is the last round."""
    async with hosts.scene(timing, times, KeptScene if options.kept else Scene) as scene:
        began = clock.now()
        await scene.start(3)
        starting = clock.now() - began
        print(f"{hosts.backend}: three bots are up after {starting:.1f} s", flush=True)
        ground = Ground(hosts, scene, starting=starting)
        for done, seed in enumerate(seeds, 1):
            wrong, spoilt = await one_round(options, results, ground, seed, last=seed == seeds[-1])
            if wrong or spoilt:
                return done, int(wrong)
    return len(seeds), 0


async def one_round(
    options: argparse.Namespace, results: Results, ground: Ground, seed: int, *, last: bool
) -> tuple[bool, bool]:
    """Was something wrong, and did the laboratory spoil it?"""
    plan = choices(options.backend, seed, ground.scene.timing.ttl, options.only, kept=options.kept)
    code = code_of(options.backend)
    async with to_its_end(f"round {seed} on {options.backend}"):
        history = await Round(ground, seed, plan, last=last).run()
    verdict = check(history)
    steps = await replayed(options, history, verdict)
    row = results.add(history, verdict, code=code, mutant=options.mutant, kept=options.kept)
    said = ", ".join(f"{choice.name} ({choice.on}) {choice.lasts:.1f} s" for choice in plan)
    print(f"{seed} {options.backend}: {said}; nobody led for {row['leaderless']} s; took {row['took']} s")
    if steps:
        print(f"    replayed against the model: {steps} steps")
    for finding in verdict.violations[:20]:
        print(f"    {finding.check}: {finding.words}")
    for name, count in verdict.excused.items():
        print(f"    counted apart: {name}: {count}")
    for words in history.stray:
        print(f"    the laboratory's own trouble: {words}")
    if verdict.violations or history.stray:
        print(f"    see {keep(options.folder, history, verdict, ground)}")
    sys.stdout.flush()
    return bool(verdict.violations), bool(history.stray)


@asynccontextmanager
async def to_its_end(what: str) -> AsyncIterator[None]:
    """TimeoutError if it does not come to it, and where each task stands."""
    late = asyncio.get_running_loop().call_later(ROUND_WITHIN, show_tasks, what)
    try:
        async with asyncio.timeout(ROUND_WITHIN + 1):
            yield
    finally:
        late.cancel()


def show_tasks(what: str) -> None:
    print(f"{what} does not end after {ROUND_WITHIN:g} s", file=sys.stderr)
    for task in asyncio.all_tasks():
        task.print_stack()


async def replayed(options: argparse.Namespace, history: History, verdict: Verdict) -> int:
    """Replay one history in ten, each of broken bots; how many steps it has, 0 if it is not one of those."""
    chosen = options.mutant or history.seed % ONE_IN == 0
    if not options.replays or not chosen or not is_modelled(history):
        return 0
    try:
        return await asyncio.to_thread(replay, history, verdict)
    except ModelFailed as error:
        history.stray.append(str(error))
        return 0


if __name__ == "__main__":
    sys.exit(main())
