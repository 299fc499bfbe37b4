"""A bot that fails where nobody catches it, in each way that there is, and tells its token while it does."""

from __future__ import annotations

import asyncio
import gc
import threading

from aiogram import Bot, Dispatcher

dispatcher = Dispatcher(disable_fsm=True)


@dispatcher.startup()
async def fail(bot: Bot) -> None:
    def in_thread() -> None:
        raise RuntimeError(f"thread: {bot.token}")

    async def in_task() -> None:
        raise RuntimeError(f"task: {bot.token}")

    class Finalized:
        def __del__(self) -> None:
            raise RuntimeError(f"finalizer: {bot.token}")

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    task = asyncio.ensure_future(in_task())
    await asyncio.wait([task])
    del task
    Finalized()
    gc.collect()
    raise RuntimeError(f"startup: POST https://api.telegram.org/bot{bot.token}/getMe failed")
