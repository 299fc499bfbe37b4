"""The name of a bot's lock."""

from __future__ import annotations


def telegram_lock(bot_id: int, *, test: bool = False) -> str:
    """The lock of a bot, by its public id; Telegram's test environment has queues of its own."""
    return f"telegram-test/{bot_id}" if test else f"telegram/{bot_id}"
