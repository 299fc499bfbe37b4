"""Somebody who listens at an address that is spoken to in the clear."""

from __future__ import annotations

import asyncio
from typing import Self


class Wiretap:
    """Hears what is sent to `url`, and hangs up."""

    def __init__(self) -> None:
        self.heard = b""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.read(65536)
        writer.close()
