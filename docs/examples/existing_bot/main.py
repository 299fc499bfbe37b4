"""The bot of before.py on many servers: one polls, the others stand by. An import and a call differ."""

import asyncio
import logging
import os

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import CommandStart
from aiogram.types import Message

from cluster_lock.aiogram import start_polling

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
    await start_polling(dispatcher, bot, config="config.yaml")


if __name__ == "__main__":
    asyncio.run(main())
