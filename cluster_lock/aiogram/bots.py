"""The Bot that the settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

if TYPE_CHECKING:
    from cluster_lock.config import Settings


def bot_from(settings: Settings) -> Bot:
    """A Bot with `telegram.token`, which asks `telegram.api`. Raises ConfigError if no token is set."""
    base = settings.telegram.api.rstrip("/")
    test = "/test" if settings.telegram.test_environment else ""
    server = TelegramAPIServer(
        base=f"{base}/bot{{token}}{test}/{{method}}", file=f"{base}/file/bot{{token}}{test}/{{path}}"
    )
    return Bot(settings.bot_token().get_secret_value(), session=AiohttpSession(api=server))
