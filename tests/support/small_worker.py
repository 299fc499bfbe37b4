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
    deed = sys.argv[1] if len(sys.argv) > 1 else "works"
    term.handover["by"] = os.environ["INSTANCE"]
    try:
        match deed:
            case "works":
                await term.wait_step_down()
            case "exits":
                os._exit(3)
            case "returns":
                return
            case "blocks":
                time.sleep(60)  # noqa: ASYNC251 - that is the point
            case "swallows":
                while True:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        say("swallowed")
            case "restarts" if not term.inherited:
                await asyncio.to_thread(os.execv, sys.executable, sys.orig_argv)
            case "restarts at the stop":
                await term.wait_step_down()
                os.execv(sys.executable, sys.orig_argv)
            case "restarts":
                await term.wait_step_down()
            case "fails to restart" | "fails to restart and crashes":
                try:
                    os.execv("/nowhere", ["/nowhere"])
                except OSError:
                    say("goes on")
                if deed.endswith("crashes"):
                    os.kill(os.getpid(), signal.SIGKILL)
                await term.wait_step_down()
            case "forks and restarts" if not term.inherited:
                if os.fork() == 0:
                    time.sleep(60)  # noqa: ASYNC251 - a child of a pool that waits for work
                os.execve(sys.executable, sys.orig_argv, dict(os.environ))
            case "forks and restarts":
                await term.wait_step_down()
            case "starts another worker":
                if os.fork() == 0:
                    number = os.environ["CLUSTER_LOCK_FD"].partition(":")[0]
                    os.environ["CLUSTER_LOCK_FD"] = number
                    os.set_inheritable(int(number), True)
                    os.execv(sys.executable, [*sys.orig_argv[:-1], "works"])
                await term.wait_step_down()
            case "becomes another":
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
            case "asks":
                term.step_down("asked by itself", cool_down=60)
                await term.wait_step_down()
    finally:
        say("ends")


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
