"""A program for `cluster-lock run` that leads the lock `telegram/1` and says so. What it does in a term is its
argument."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time

from cluster_lock.election import Term
from cluster_lock.keeper.worker import open_visiting_election

from .keepers import FAST


async def body(term: Term) -> None:
    print(f"leading {term.fencing_token} {term.origin} {dict(term.inherited)}", flush=True)
    term.handover["by"] = "the first"
    match sys.argv[1]:
        case "works":
            await term.wait_step_down()
        case "crashes":
            os.kill(os.getpid(), signal.SIGKILL)
        case "blocks":
            time.sleep(60)  # noqa: ASYNC251 - that is the point
        case "restarts" if not term.inherited:
            os.execv(sys.executable, sys.orig_argv)
        case "restarts":
            await term.wait_step_down()
    print(f"ends: {term.request.reason if term.request is not None else None}", flush=True)


async def main() -> None:
    async with open_visiting_election(FAST) as election:
        if election is None:
            print("no keeper", flush=True)
            return
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, election.stop, "SIGTERM")
        print(f"page {election.page}", flush=True)
        await election.lead("telegram/1", body)
    print("done", flush=True)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    asyncio.run(main())
