"""A leader whose log nobody reads: it holds a lock in the folder given, logs much, and works on for another lease."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from cluster_lock.drivers.file import FileDriver
from cluster_lock.host import logs
from cluster_lock.session import Session
from cluster_lock.values import Timing

TIMING = Timing(ttl=4.0, margin=1.0, stop_time=0.5)


async def main(folder: Path) -> None:
    log = logging.getLogger("bot")
    async with Session(FileDriver(folder), instance="a", timing=TIMING) as session, session.lock("x").hold():
        for number in range(3000):
            log.info("line %d: %s", number, "x" * 100)
            await asyncio.sleep(0)
        until = session.context.lease.deadline + TIMING.ttl
        while session.context.lease.deadline < until:
            await asyncio.sleep(0.1)
            log.info("works on")


if __name__ == "__main__":
    logs.configure()
    asyncio.run(main(Path(sys.argv[1])))
    logging.getLogger("bot").info("the last word")
