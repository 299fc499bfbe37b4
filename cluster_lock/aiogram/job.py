"""One update on its way through its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from aiogram.types import Update

from .window import Delivered


class QueuedUpdate:
    """What was `delivered`, as aiogram's `update`."""

    __slots__ = (
        "alarm",
        "cut_off",
        "delivered",
        "left_behind",
        "line",
        "number",
        "out_of_time",
        "refused",
        "started",
        "task",
        "update",
        "urgent",
    )

    def __init__(
        self,
        delivered: Delivered,
        update: Update,
        line: Hashable = None,
        *,
        urgent: bool = False,
        refused: Exception | None = None,
    ) -> None:
        self.delivered = delivered
        self.update = update
        self.line = line
        """What it is in order with; None: with nothing."""
        self.number = 0
        """In the order of delivery."""
        self.urgent = urgent
        """It overtakes what waits."""
        self.refused = refused
        """Why it is not handled, but has failed."""
        self.task: asyncio.Task[None] | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.started = False
        self.out_of_time = False
        self.left_behind = False
        """Out of its time, and it still runs: the next of its line does not wait for it."""
        self.cut_off = False
        """Cancelled because the term ends."""

    @property
    def album(self) -> Hashable:
        return self.delivered.album
