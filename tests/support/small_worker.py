"""A worker without a bot: leads the lock `x` and says so. What it does in a term is its first argument."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time

from cluster_lock.election import Term
from cluster_lock.errors import ClusterLockError
from cluster_lock.keeper.names import under_keeper
from cluster_lock.keeper.worker import open_worker_election

from .keepers import FAST


async def body(term: Term) -> None:
    say(f"leading {term.fencing_token} {term.origin} {dict(term.inherited)}")
    term.handover["by"] = os.environ["INSTANCE"]
    try:
        await DEEDS.get(sys.argv[1] if len(sys.argv) > 1 else "works", returns)(term)
    finally:
        say("ends")


async def works(term: Term) -> None:
    await term.wait_step_down()


async def returns(term: Term) -> None:
    return


async def exits(term: Term) -> None:
    os._exit(3)


async def blocks(term: Term) -> None:
    time.sleep(60)  # noqa: ASYNC251 - that is the point


async def swallows(term: Term) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            say("swallowed")


async def restarts(term: Term) -> None:
    if not term.inherited:
        await asyncio.to_thread(os.execv, sys.executable, sys.orig_argv)
    await term.wait_step_down()


async def restarts_at_the_stop(term: Term) -> None:
    await term.wait_step_down()
    os.execv(sys.executable, sys.orig_argv)


async def fails_to_restart(term: Term) -> None:
    try:
        os.execv("/nowhere", ["/nowhere"])
    except OSError:
        say("goes on")
    if sys.argv[1].endswith("crashes"):
        os.kill(os.getpid(), signal.SIGKILL)
    await term.wait_step_down()


async def forks_and_restarts(term: Term) -> None:
    if not term.inherited:
        if os.fork() == 0:
            time.sleep(60)  # noqa: ASYNC251 - a child of a pool that waits for work
        os.execve(sys.executable, sys.orig_argv, dict(os.environ))
    await term.wait_step_down()


async def starts_another_worker(term: Term) -> None:
    if os.fork() == 0:
        number = os.environ["CLUSTER_LOCK_FD"].partition(":")[0]
        os.environ["CLUSTER_LOCK_FD"] = number
        os.set_inheritable(int(number), True)
        os.execv(sys.executable, [*sys.orig_argv[:-1], "works"])
    await term.wait_step_down()


async def becomes_another(term: Term) -> None:
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])


async def asks(term: Term) -> None:
    term.step_down("asked by itself", cool_down=60)
    await term.wait_step_down()


DEEDS = {
    "works": works,
    "exits": exits,
    "blocks": blocks,
    "swallows": swallows,
    "restarts": restarts,
    "restarts at the stop": restarts_at_the_stop,
    "fails to restart": fails_to_restart,
    "fails to restart and crashes": fails_to_restart,
    "forks and restarts": forks_and_restarts,
    "starts another worker": starts_another_worker,
    "becomes another": becomes_another,
    "asks": asks,
}
"""By the first argument. Any other (one for the whole program, say) returns at once."""


def say(text: str) -> None:
    print(f"{os.environ['INSTANCE']}: {text}", flush=True)


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    async with open_worker_election(FAST) as election:
        say("ready")
        if "migrates" in sys.argv:
            await asyncio.sleep(0)  # so that it has given a sign of life
            time.sleep(2 * FAST.stall_limit)  # noqa: ASYNC251 - as a startup hook does
        with election.reporting(
            lambda: [{"bot_id": 1, "lock": "x", "deaf": "deaf" in sys.argv and election.term("x") is not None}]
        ):
            await election.lead("x", body)
    if "lingers" in sys.argv:
        await asyncio.sleep(2 * FAST.stall_limit)
    say("done")


if __name__ == "__main__":
    if "forks first" in sys.argv and os.fork() == 0:
        sys.argv.remove("forks first")
        say(f"child: {under_keeper()}")
        os.environ["INSTANCE"] += "'s child"
    try:
        asyncio.run(main())
    except ClusterLockError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
