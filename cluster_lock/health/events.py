"""The board as a stream of server-sent events: one a second, and one at once at each transition."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from cluster_lock.aio import end

from .board import Board
from .document import document

WATCHERS = 16
"""At a time; others are told to come again."""
EVERY = 1.0
AT_MOST = 0.05
"""Seconds between two events, however much happens: the second one tells it all."""
SLOWEST = 5.0
"""Seconds that a reader may take for an event. Nothing is kept for one who is slower."""


class Events:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._watchers = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self._closed.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return web.Response(headers=headers)
        if self._watchers >= WATCHERS or self._closed.is_set():
            return web.Response(status=503, headers={"Retry-After": "10"}, text="too many are watching already\n")
        self._watchers += 1
        try:
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await self._stream(response)
        finally:
            self._watchers -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        try:
            while not self._closed.is_set():
                changed = self._board.changed
                text = json.dumps(document(self._board), ensure_ascii=False)
                async with asyncio.timeout(SLOWEST):
                    await response.write(f"event: state\ndata: {text}\n\n".encode())
                await self._pause(changed)
        except (TimeoutError, ConnectionError):
            return  # too slow, or gone

    async def _pause(self, changed: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, self._closed)]
        try:
            await asyncio.wait(waits, timeout=EVERY, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(waits)
        await asyncio.sleep(AT_MOST)
