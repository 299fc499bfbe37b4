"""A bot with an update that ends its process, and others that are under way meanwhile."""

import asyncio
import os

from aiogram import Dispatcher
from aiogram.types import Message

dispatcher = Dispatcher()


@dispatcher.message()
async def handle(message: Message) -> None:
    await message.answer(f"begun {message.text}")
    if message.text == "poison":
        os._exit(9)
    await asyncio.sleep(0.5)
    await message.answer(f"done {message.text}")
