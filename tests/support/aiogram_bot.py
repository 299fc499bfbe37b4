"""Real aiogram bots that talk to the Telegram simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from cluster_lock.testing.telegram import CLIENT_HEADER

from .botapi import TOKEN


@asynccontextmanager
async def aiogram_bot(url: str, token: str = TOKEN, *, client: str = "a") -> AsyncIterator[Bot]:
    """A real aiogram Bot at the simulator's address, named `client` for its oracle."""
    session = NamedSession(client, api=TelegramAPIServer.from_base(url))
    try:
        yield Bot(token, session=session)
    finally:
        await session.close()


class NamedSession(AiohttpSession):
    def __init__(self, client: str, **options: Any) -> None:
        super().__init__(**options)
        self._client = client

    async def create_session(self) -> Any:
        session = await super().create_session()
        session.headers[CLIENT_HEADER] = self._client
        return session

    async def close(self) -> None:
        """Without aiogram's quarter of a second for TLS connections to close: there are none here."""
        if self._session is not None:
            await self._session.close()
