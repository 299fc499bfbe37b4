"""A bot whose handlers fail, and tell its token while they do."""

from __future__ import annotations

import logging

from aiogram import Bot, Dispatcher
from aiogram.types import Message

dispatcher = Dispatcher(disable_fsm=True)


@dispatcher.message()
async def tell(message: Message, bot: Bot) -> None:
    logging.getLogger("indiscreet").warning("handling with %s", bot.token, extra={"header": {"token": bot.token}})
    raise RuntimeError(f"POST https://api.telegram.org/bot{bot.token}/sendMessage failed")
