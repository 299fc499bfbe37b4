"""As process 1 of a container the keeper inherits orphans, and somebody has to collect them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster_lock.aio import end

EVERY = 1.0


@asynccontextmanager
async def reaping() -> AsyncIterator[None]:
    """While the block runs, zombies that are nobody's are collected. Those of asyncio's own children are left to it."""
    if sys.platform != "linux" or os.getpid() != 1:
        yield
        return
    task = asyncio.ensure_future(_reap())
    try:
        yield
    finally:
        await end([task])


async def _reap() -> None:
    if sys.platform != "linux":
        return
    seen = 0
    while True:
        await asyncio.sleep(EVERY)
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222 - WNOHANG
            # Seen twice: asyncio collects its own at once.
            if found is not None and found.si_pid == seen:
                os.waitpid(seen, os.WNOHANG)  # noqa: ASYNC222
        except ChildProcessError:
            found = None
        seen = found.si_pid if found is not None else 0
