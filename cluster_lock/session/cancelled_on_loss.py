"""A block that is cancelled when the lock under it is lost."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from cluster_lock.errors import LockLost

from .hold import Hold


class CancelledOnLoss:
    """Cancels the task inside when the hold is lost, and turns that cancellation into LockLost, as asyncio.timeout does
    with its own."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._fired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._watching = asyncio.ensure_future(self._fire())
        return self

    async def _fire(self) -> None:
        await self._hold.wait_lost()
        self._fired = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        ours = self._fired and self._task.uncancel() <= self._cancelling
        cancelled_by_us = ours and kind is not None and issubclass(kind, asyncio.CancelledError)
        # Also when the block ended well after all: its last part ran without the lock.
        if self._hold.loss is not None and (kind is None or cancelled_by_us):
            raise LockLost(f"{self._hold.name}: {self._hold.loss}") from error
