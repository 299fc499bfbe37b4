"""A bot for tests of `python -m bot start --app ...`: the text "work 3" keeps it busy for 3 s."""

from __future__ import annotations

import asyncio

from aiogram import Dispatcher
from aiogram.types import Message

dispatcher = Dispatcher(disable_fsm=True)


@dispatcher.message()
async def work(message: Message) -> None:
    await message.answer("begun")
    await asyncio.sleep(float((message.text or "work 0").split()[1]))
    await message.answer("done")


@dispatcher.shutdown()
async def say_so() -> None:
    print("the hook ran", flush=True)
