"""Work that goes on beside, and whose failure is told: nobody awaits it before the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("cluster_lock.health")


def beside(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of `work`. The caller ends it."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of the health page stopped working", exc_info=error)
