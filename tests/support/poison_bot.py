"""A bot with an update that ends its process, one that restarts it, and others that are under way meanwhile."""

import asyncio
import os
import sys

from aiogram import Dispatcher
from aiogram.types import Message

dispatcher = Dispatcher()


@dispatcher.shutdown()
async def shut_down() -> None:
    print("the dispatcher has shut down", flush=True)


@dispatcher.message()
async def handle(message: Message) -> None:
    await message.answer(f"begun {message.text}")
    if message.text == "poison":
        os._exit(9)
    if message.text == "exit":
        sys.exit(3)
    if message.text == "restart":
        os.execv(sys.executable, [sys.executable, "-m", "bot", *sys.argv[1:]])
    await asyncio.sleep(0.5)
    await message.answer(f"done {message.text}")
