"""The simulator as a test holds it: the engine, served over HTTP, with control for other processes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .bot_state import ConflictMode, Front
from .clocks import Clock
from .control import Control
from .engine import Engine
from .front import BotApi
from .server import HttpServer


class TelegramSimulator(Engine):
    """A Bot API server for tests: an asynchronous context manager that listens on `url`.

    Any well-formed token is a bot of its own; its queue belongs to the bot's id. `port` 0 takes a free one.
    `strict`: leaving the context without another error raises AssertionError when a 409 went to a live client.
    `seed` makes update ids repeatable. `clock`: the simulated server's time, see `clocks`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        conflict: ConflictMode = "newest_wins",
        front: Front = "cloud",
        strict: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(clock, conflict, front, seed)
        self._host = host
        self._port = port
        self._strict = strict
        self._server = HttpServer(BotApi(self, Control(self)))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if self._strict and kind is None:
            conflicts = self.oracle.report().findings["conflicts_live"]
            assert not conflicts, f"{len(conflicts)} conflicts went to live clients: {conflicts}"

    async def start(self) -> None:
        """Listen. OSError when the address cannot be had."""
        port = await self._server.start(self._host, self._port)
        self.served_at(f"http://{self._host}:{port}")

    async def stop(self) -> None:
        await self.shut_down()
        await self._server.stop()
