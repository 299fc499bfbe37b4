"""`python -m mutate`: changes a sample of places in the core, one at a time, and runs the fast tests on each.

0 if each mutant died, or is named in tests/mutate/equivalent.toml; 1 if one survived that is not; 2 if it was stopped.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .copies import Copy
from .equivalents import Equivalent, equivalents
from .places import ROOMS, Mutation, found, sample
from .reach import reach
from .trials import Content, Outcome, Results, Trial, cosmic_ray, tried

CHECKOUT = Path(__file__).parents[2]
TARGET = 95
"""Of a hundred mutants of a sample, this many die."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutate", description=__doc__)
    parser.add_argument("--sample", type=int, default=400, help="how many places are changed")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="how many at once")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".mutate", help="for the results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.folder.mkdir(exist_ok=True)
    content = Content.of(CHECKOUT)
    mutations = found(CHECKOUT, options.folder / f"places-{content.library}.json")
    chosen = sample(CHECKOUT, mutations, options.sample, options.seed)
    named = equivalents()
    results = Results(options.folder / "results.jsonl", content, lambda trial: any(each.is_of(trial) for each in named))
    known = {each: trial for each in chosen if (trial := results.known(each))}
    print(f"{cosmic_ray()}: {len(chosen)} places, seed {options.seed}; {len(known)} are known from before", flush=True)
    try:
        unknown = [each for each in chosen if each not in known]
        trials = [*known.values(), *_run(unknown, options, content, results)]
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here")
        return 2
    return _tell(sorted(trials, key=lambda trial: (trial.file, trial.line, trial.operator)), named)


def _run(mutations: list[Mutation], options: argparse.Namespace, content: Content, results: Results) -> Iterator[Trial]:
    if not mutations:
        return
    with tempfile.TemporaryDirectory(prefix="cluster-lock-mutate-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(min(options.jobs, len(mutations))):
            copies.put(Copy(CHECKOUT, Path(folder, f"copy-{number}").resolve()))
        tests = reach(copies.queue[0], options.folder / f"reach-{content.tests}.json")

        def one(mutation: Mutation) -> Trial:
            copy = copies.get()
            try:
                trial = tried(copy, mutation, tests)
            finally:
                copies.put(copy)
            results.add(mutation, trial)
            return trial

        with ThreadPoolExecutor(options.jobs) as pool:
            running = [pool.submit(one, mutation) for mutation in mutations]
            try:
                for number, done in enumerate(as_completed(running), 1):
                    trial = done.result()
                    print(
                        f"{number}/{len(mutations)} {trial.seconds:5.1f} s {trial.outcome:10} {_what(trial)}",
                        flush=True,
                    )
                    yield trial
            except BaseException:
                # Those under way end by themselves, within their limits.
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _what(trial: Trial) -> str:
    return f"{trial.file}:{trial.line} [{trial.operator.removeprefix('core/')}] {trial.was} -> {trial.becomes}"


def _tell(trials: list[Trial], named: list[Equivalent]) -> int:
    """The table, the survivors, and what is wrong with the list of those that may survive."""
    print(f"\n{'':24}{'sampled':>10}" + "".join(f"{each:>12}" for each in Outcome))
    for room in (*ROOMS, ""):
        of = [trial for trial in trials if trial.file.startswith(room)]
        counted = Counter(trial.outcome for trial in of)
        print(f"{room or 'together':24}{len(of):10}" + "".join(f"{counted[each]:12}" for each in Outcome))
    survivors = [trial for trial in trials if trial.outcome is Outcome.SURVIVED]
    unnamed = [trial for trial in survivors if not any(each.is_of(trial) for each in named)]
    for trial in survivors:
        why = next((each.why for each in named if each.is_of(trial)), "")
        print(f"{'survived, and may' if why else '! SURVIVED'}: {_what(trial)}{f' ({why})' if why else ''}")
    for each in named:
        if wrong := each.wrong(CHECKOUT, trials):
            print(f"no longer right in equivalent.toml: {each.file}: {each.was} -> {each.becomes}: {wrong}")
    viable = sum(trial.outcome is not Outcome.NOT_VIABLE for trial in trials)
    died = viable - len(survivors)
    if viable:
        print(f"\n{died} of {viable} mutants died: {100 * died / viable:.1f} %, wanted {TARGET} %.", end=" ")
    print(f"{len(survivors) - len(unnamed)} survivors are named, {len(unnamed)} are not.")
    return 1 if unnamed else 0


if __name__ == "__main__":
    sys.exit(main())
