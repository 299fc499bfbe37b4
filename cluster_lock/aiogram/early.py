"""Confirm early what would silence the bot: an update whose handler takes its time, when the window is about to fill.

Behind the lowest unfinished update Telegram shows ninety-nine more and then nothing, however long its handler takes. So
before that its update is confirmed; its handler runs on. What is lost by it if the process dies in that time is said in
the guarantees, and `window: strict` would rather wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cluster_lock import clock

from .state import Facts
from .window import Delivered, Window

log = logging.getLogger("cluster_lock.aiogram")

LONG = 5.0
"""Seconds after which a handler is worth less waiting for than all others are."""


class Early:
    """For one term. `confirmed(delivered)` is called for each."""

    def __init__(self, bot_id: int, window: Window, facts: Facts, confirmed: Callable[[Delivered], None]) -> None:
        self._bot_id, self._window, self._facts, self._confirmed = bot_id, window, facts, confirmed

    def relieve(self, *, cut: bool) -> float | None:
        """Confirm what is to be confirmed now, from the lowest unfinished update upward. Seconds until there may be
        more to confirm; None: not by waiting. `cut`: Telegram shows nothing new although there are fewer."""
        while (self._window.is_crowded or cut) and (lowest := self._window.lowest) is not None:
            left = LONG - has_run_for(lowest)
            if left > 0:
                return left if left <= LONG else None
            self._confirm(lowest)
            cut = False
        return None

    def _confirm(self, delivered: Delivered) -> None:
        log.warning(
            "bot %d: update %d is confirmed early: its handler has run for %.0f s, and Telegram would soon show nothing"
            " new. It runs on; if it is cut off, it does not come again (telegram.window: strict would wait for it)",
            self._bot_id,
            delivered.update_id,
            has_run_for(delivered),
        )
        delivered.early = True
        self._facts.confirmed_early += 1
        self._window.finish(delivered)
        self._confirmed(delivered)


def has_run_for(delivered: Delivered) -> float:
    """Seconds since its handler has started; less than nothing if it has not: such a one is never confirmed early."""
    return clock.now() - delivered.began
