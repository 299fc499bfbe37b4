"""A dialogue that survives a change of the leader: aiogram's FSM in Redis, which all instances share.

In the memory of one process (aiogram's default) each hand-over would forget where every user was.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from aiogram import BaseMiddleware, Bot, Dispatcher, F, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command
from aiogram.fsm.context import FSMContext
from aiogram.fsm.state import State, StatesGroup
from aiogram.fsm.storage.redis import RedisStorage
from aiogram.types import Message, TelegramObject

from cluster_lock.aiogram import start_polling

API = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
A_WEEK = timedelta(weeks=1)

router = Router()


class Order(StatesGroup):
    dish = State()
    number = State()


QUESTIONS = {Order.dish.state: "What would you like?", Order.number.state: "How many times?"}


class Once(BaseMiddleware):
    """A message that was handled when its leader crashed, but not yet confirmed to Telegram, comes again. The dialogue
    has gone on by then: it would be taken for the answer to the next question. One whose handler may have been cut off
    half-way (`redelivered`) may have moved the dialogue, or not: so the question that is open now is asked again."""

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> None:
        assert isinstance(event, Message)
        state: FSMContext = data["state"]
        if event.message_id <= (await state.get_data()).get("handled", 0):
            return
        if data["redelivered"] and (question := QUESTIONS.get(await state.get_state())):
            await event.answer(f"I was interrupted. {question}")
        else:
            await handler(event, data)
        await state.update_data(handled=event.message_id)


router.message.middleware(Once())


@router.message(Command("order"))
async def ask_dish(message: Message, state: FSMContext) -> None:
    await state.set_state(Order.dish)
    await message.answer("What would you like?")


@router.message(Order.dish, F.text)
async def ask_number(message: Message, state: FSMContext) -> None:
    await state.update_data(dish=message.text)
    await state.set_state(Order.number)
    await message.answer(f"How many times {message.text}?")


@router.message(Order.number, F.text.isdecimal())
async def confirm(message: Message, state: FSMContext) -> None:
    dish = (await state.get_data())["dish"]
    await state.clear()
    await message.answer(f"Ordered: {message.text} x {dish}")


@router.message(Order.number)
async def ask_number_again(message: Message) -> None:
    await message.answer("A number, please.")


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    dispatcher = Dispatcher(storage=RedisStorage.from_url(REDIS, state_ttl=A_WEEK, data_ttl=A_WEEK))
    dispatcher.include_router(router)
    bot = Bot(os.environ["TELEGRAM_BOT_TOKEN"], session=AiohttpSession(api=TelegramAPIServer.from_base(API)))
    await start_polling(dispatcher, bot)


if __name__ == "__main__":
    asyncio.run(main())
