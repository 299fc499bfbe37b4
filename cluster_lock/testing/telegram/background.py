"""Ending a task that runs until it is ended."""

from __future__ import annotations

import asyncio


async def end(task: asyncio.Task[None]) -> None:
    """Cancel `task` and wait for it; raises what it had died of by itself, if it had."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
