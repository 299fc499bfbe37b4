"""An echo bot, much as in aiogram's own documentation. Started twice, it fights itself: 409 Conflict."""

import asyncio
import logging
import os

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import CommandStart
from aiogram.types import Message

# Only for a Bot API server of your own, or the simulator.
API = os.environ.get("TELEGRAM_API", "https://api.telegram.org")

dispatcher = Dispatcher()


@dispatcher.message(CommandStart())
async def start(message: Message) -> None:
    await message.answer("Write something, and I say it too.")


@dispatcher.message()
async def echo(message: Message) -> None:
    await message.answer(message.text or "I know text only.")


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    bot = Bot(os.environ["TELEGRAM_BOT_TOKEN"], session=AiohttpSession(api=TelegramAPIServer.from_base(API)))
    await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
