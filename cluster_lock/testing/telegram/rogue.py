"""A poller outside of every lock: what a forgotten container or a colleague's laptop does to a bot."""

from __future__ import annotations

import asyncio

import aiohttp

from .background import end
from .bot_key import BotKey
from .headers import CLIENT_HEADER

CLIENT = "rogue"
_SPARE = 5.0  # seconds by which a request may outlast its poll


class RoguePoller:
    """Runs from its creation until `stop`. It talks HTTP, so its polls are as real as anybody's."""

    def __init__(self, url: str, bot: BotKey, poll_timeout: int, pause: float, *, acks: bool) -> None:
        environment = "/test" if bot.is_test else ""
        self._url = f"{url}/bot{bot.bot_id}:{CLIENT}{environment}/getUpdates"
        self._poll_timeout = poll_timeout
        self._pause = pause
        self._acks = acks
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        offset = 0
        timeout = aiohttp.ClientTimeout(total=self._poll_timeout + _SPARE)
        async with aiohttp.ClientSession(headers={CLIENT_HEADER: CLIENT}, timeout=timeout) as session:
            while True:
                data = {"timeout": str(self._poll_timeout), "offset": str(offset)}
                try:
                    async with session.post(self._url, data=data) as response:
                        answer = await response.json(content_type=None)
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    answer = {"ok": False}  # whatever befalls it, a rogue comes again
                if answer["ok"] and answer["result"]:
                    if self._acks:
                        offset = answer["result"][-1]["update_id"] + 1
                        continue
                    await asyncio.sleep(self._pause)
                elif not answer["ok"]:
                    await asyncio.sleep(self._pause)
