"""`PollingManager`: poll, and give up when somebody else goes on polling the same bot."""

from __future__ import annotations

from typing import Any

from aiogram import Bot, Dispatcher

from .conflicts import ConflictCallback, ConflictRules
from .start import start_polling


class PollingManager:
    """Waits `initial_delay` seconds after the first conflict, `backoff_factor` times longer after each further one, at
    most `max_delay`; at the one after `max_retries` in a row it gives up. A getUpdates that lasted its whole time or
    brought updates begins the count anew."""

    def __init__(
        self,
        max_retries: int = 5,
        initial_delay: float = 5.0,
        max_delay: float = 300.0,
        backoff_factor: float = 2.0,
    ) -> None:
        self.max_retries = max_retries
        self.initial_delay = initial_delay
        self.max_delay = max_delay
        self.backoff_factor = backoff_factor

    async def start_polling_with_retry(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        on_conflict_callback: ConflictCallback | None = None,
        **arguments: Any,
    ) -> None:
        """`start_polling` with these numbers, and with its other arguments (`config=`, `leadership=`, ...).

        `on_conflict_callback` is called with each `Conflict`. Raises ConflictPersists when it gives up, after the lock
        was released, and what `start_polling` raises.
        """
        rules = ConflictRules(
            first=self.initial_delay,
            longest=self.max_delay,
            factor=self.backoff_factor,
            give_up_after=self.max_retries,
            on_conflict=on_conflict_callback or "retry",
        )
        await start_polling(dispatcher, bot, on_conflict=rules, **arguments)
