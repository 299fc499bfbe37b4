"""A session whose requests tell the oracle who writes them. Needs aiogram."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiogram.client.session.aiohttp import AiohttpSession
from aiohttp import ClientRequest, ClientSession, TCPConnector
from aiohttp.connector import Connection

Headers = Callable[[], Mapping[str, str]]


class TellingSession(AiohttpSession):
    """aiogram's session over plain HTTP without a limit of connections. `headers` is called for each request at the
    moment of its writing."""

    def __init__(self, *, headers: Headers, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._headers = headers
        self._client: ClientSession | None = None

    async def create_session(self) -> ClientSession:
        if self._client is None or self._client.closed:
            self._client = ClientSession(connector=_Telling(self._headers))
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class _Telling(TCPConnector):
    def __init__(self, headers: Headers) -> None:
        super().__init__(limit=0)
        self._headers = headers

    async def connect(self, req: ClientRequest, *args: Any, **kwargs: Any) -> Connection:
        connection = await super().connect(req, *args, **kwargs)
        req.headers.update(self._headers())
        return connection
