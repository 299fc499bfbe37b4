"""A plain HTTP client for tests of a server in the same loop: it sends what it is told to, right or wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from support.aio import PATIENCE


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def fetch(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request on a connection of its own. `Host` is the server's own unless given; "" leaves it out."""
    address = urlsplit(url)
    assert address.hostname is not None
    given = {"Host": address.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value)]
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode())
        raw = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Answer(int(first.split()[1]), named, body)


class Stream:
    """The server-sent events of `path`. `async with Stream(url, "/events") as stream: await stream.event()`."""

    def __init__(self, url: str, path: str) -> None:
        self._address, self._path = urlsplit(url), path

    async def __aenter__(self) -> Stream:
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port, limit=2**20
        )
        self._writer.write(f"GET {self._path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n".encode())
        self.head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode()
        self.status = int(self.head.split()[1])
        return self

    async def event(self) -> Any:
        """The next one's JSON. Raises IncompleteReadError at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            while not (line := await self._reader.readuntil(b"\n")).startswith(b"data: "):
                pass
        return json.loads(line.removeprefix(b"data: "))

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
