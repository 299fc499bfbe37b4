"""A bot as anybody writes it: its Dispatcher, and nothing about locks or polling."""

from __future__ import annotations

import socket

from aiogram import Dispatcher
from aiogram.filters import CommandStart
from aiogram.types import Message

dispatcher = Dispatcher()


@dispatcher.message(CommandStart())
async def start(message: Message) -> None:
    await message.answer(f"This is {socket.gethostname()}. Send me a text.")


@dispatcher.message()
async def echo(message: Message) -> None:
    await message.answer(f"{socket.gethostname()}: {message.text or 'that was no text'}")
