"""The same echo bot in a program that is not asynchronous itself."""

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


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    bot = Bot(os.environ["TELEGRAM_BOT_TOKEN"], session=AiohttpSession(api=TelegramAPIServer.from_base(API)))
    dispatcher.run_polling(bot)


if __name__ == "__main__":
    main()
