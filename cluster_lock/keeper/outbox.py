"""Writing to a pipe without ever waiting for its reader."""

from __future__ import annotations

import asyncio
import socket


class Outbox:
    """What is on its way through `pipe`. Made in the event loop that serves it."""

    def __init__(self, pipe: socket.socket) -> None:
        pipe.setblocking(False)
        self._pipe, self._loop = pipe, asyncio.get_running_loop()
        self._unsent = b""

    def __len__(self) -> int:
        """Bytes that the other end has not taken yet."""
        return len(self._unsent)

    def send(self, line: bytes) -> None:
        """Send it when the other end takes it. If that is gone, nothing happens: the reader of that pipe hears of
        it."""
        self._unsent += line
        self._write()

    def close(self) -> None:
        """Send nothing more. Before the pipe is closed."""
        self._unsent = b""
        self._loop.remove_writer(self._pipe)

    def _write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._pipe.send(self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self._pipe, self._write)
            return
        except OSError:
            self._unsent = b""
        self._loop.remove_writer(self._pipe)
