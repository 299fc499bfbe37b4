"""One bot, once per host, whichever program starts it."""

from __future__ import annotations

from pathlib import Path

from cluster_lock.telegram.locks import telegram_lock

from .instance_lock import InstanceLock


class BotLock(InstanceLock):
    """Held by one process of this host for each bot. The bot is that of a token, by default of the one in the settings
    (TELEGRAM_BOT_TOKEN).

        with BotLock():
            await dispatcher.start_polling(bot)

    It keeps a host to one process, and a standby on the same host out. Over several hosts, and with standbys,
    `cluster_lock.aiogram.start_polling` does it, with no other lock around it.
    """

    def __init__(self, token: str | None = None, directory: Path | str | None = None) -> None:
        """`directory`: as for InstanceLock. Raises ConfigError if no token is given nor set, ValueError for one that is
        none."""
        name = _lock_of(token)
        super().__init__(name, directory, title=f"bot {name.rpartition('/')[2]}")


def force_release_lock(token: str | None = None, directory: Path | str | None = None) -> bool:
    """Clear away what a process left of a BotLock that it did not release: True if there was something.

    Nobody needs it to start again, since the lock of a process that is gone is gone too. Raises AlreadyRunning, and
    releases nothing, while the process that holds it lives.
    """
    lock = BotLock(token, directory)
    left = lock.info() is not None
    with lock:  # whose end takes the particulars away
        return left


def _lock_of(token: str | None) -> str:
    if token is not None:
        bot_id, colon, _ = token.partition(":")
        if not (colon and bot_id.isascii() and bot_id.isdigit()):
            raise ValueError("that is no token of a bot: BotFather gives digits, a colon, and more")
        return telegram_lock(int(bot_id))
    from cluster_lock.config import load

    settings = load()
    bot_id = settings.bot_token().get_secret_value().partition(":")[0]
    return telegram_lock(int(bot_id), test=settings.telegram.test_environment)
