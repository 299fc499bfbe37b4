"""`PollingManager`: poll, and give up when somebody else goes on polling the same bot."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import Bot, Dispatcher

from .conflicts import Conflict, ConflictCallback, ConflictRules
from .start import start_polling

OnConflictCallback = ConflictCallback | Callable[[], Awaitable[None] | None]


class PollingManager:
    """Waits `initial_delay` seconds after the first conflict, `backoff_factor` times longer after each further one, at
    most `max_delay`: 5, 10, 20, 40, 80. At the conflict after `max_retries` in a row it gives up. A getUpdates that
    lasted its whole time or brought updates begins the count anew. `jitter`: by how much of itself a wait may be longer
    or shorter; 0.2 is up to a fifth."""

    def __init__(
        self,
        max_retries: int = 5,
        initial_delay: float = 5.0,
        max_delay: float = 300.0,
        backoff_factor: float = 2.0,
        jitter: float = 0.0,
    ) -> None:
        self.max_retries = max_retries
        self.initial_delay = initial_delay
        self.max_delay = max_delay
        self.backoff_factor = backoff_factor
        self.jitter = jitter

    async def start_polling_with_retry(
        self,
        dispatcher: Dispatcher,
        bot: Bot,
        on_conflict_callback: OnConflictCallback | None = None,
        **arguments: Any,
    ) -> None:
        """`start_polling` with these numbers, and with its other arguments (`config=`, `leadership=`, ...).

        `on_conflict_callback` is called at each conflict, with the `Conflict` if it takes an argument. Raises
        ConflictPersists when it gives up, after the lock was released, and what `start_polling` raises.
        """
        rules = ConflictRules(
            first=self.initial_delay,
            longest=self.max_delay,
            factor=self.backoff_factor,
            jitter=self.jitter,
            give_up_after=self.max_retries,
            on_conflict="retry" if on_conflict_callback is None else _with_conflict(on_conflict_callback),
        )
        await start_polling(dispatcher, bot, on_conflict=rules, **arguments)


def _with_conflict(callback: OnConflictCallback) -> ConflictCallback:
    """`callback` as one that takes the conflict."""
    call: Callable[..., Awaitable[None] | None] = callback
    try:
        inspect.signature(call).bind(None)
    except TypeError:  # it takes no argument

        def without(_: Conflict) -> Awaitable[None] | None:
            return call()

        return without
    except ValueError:  # of C code, which does not say what it takes
        pass
    return call
