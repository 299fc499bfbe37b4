"""The Dispatcher of this bot: what `--app bot.app:dispatcher` names. A module of one's own looks the same."""

from __future__ import annotations

from aiogram import Dispatcher

from .handlers import router

# disable_fsm: the state of dialogues in the memory of one process would be forgotten at every hand-over. A bot that has
# dialogues keeps them where all instances reach them, in Redis for example.
dispatcher = Dispatcher(disable_fsm=True)
dispatcher.include_router(router)
