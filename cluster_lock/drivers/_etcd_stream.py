"""One gRPC stream, read without the traps of `grpc.aio`.

There a cancelled `read()` cancels the whole stream, a stream that the server cancels looks like a cancellation of ours,
and a write to a stream that is over raises an error that does not say why it is over. Here each read is a task of its
own: waiting for it may end, and go on later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any


class StreamEnded(Exception):
    """A stream ended, by the server or by the network; the text is what was said about it."""


class Stream:
    """Sends `request` on the stream `call`; `answer` gives what comes back, one at a time. `close` it at the end.

    `check` is given each answer, and raises for one that must not be listened to."""

    def __init__(self, call: Any, request: Any, check: Callable[[Any], None]) -> None:
        self._call = call
        self._check = check
        self._reading: asyncio.Task[Any] | None = self._task(self._exchange(request))

    async def answer(self, at_most: float) -> Any | None:
        """The next answer, or None if none came within `at_most` seconds: ask again.

        Raises StreamEnded, grpc's AioRpcError, and what `check` raises.
        """
        if self._reading is None:
            self._reading = self._task(self._call.read())
        await asyncio.wait((self._reading,), timeout=max(0.0, at_most))
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        if reading.cancelled():
            raise StreamEnded("the stream was cancelled")
        answer = reading.result()
        if not answer:  # grpc.aio.EOF is the one thing that is not an answer
            raise StreamEnded("the server ended the stream")
        self._check(answer)
        return answer

    async def finish(self, at_most: float) -> None:
        """Let the server end the stream, or end it ourselves after `at_most` seconds.

        To etcd a stream that its client cancels has failed: a renewal that ends so looks like trouble in its metrics.
        """
        ending = self._task(self._half_close())
        try:
            await asyncio.wait((ending,), timeout=at_most)
        finally:
            ending.cancel()
            self.close()

    def close(self) -> None:
        """End the stream, at once and on both sides."""
        self._call.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_looked_at)
        return task

    async def _exchange(self, request: Any) -> Any:
        with contextlib.suppress(asyncio.InvalidStateError):  # it is over already, and the read says why
            await self._call.write(request)
        return await self._call.read()

    async def _half_close(self) -> None:
        await self._call.done_writing()
        await self._call.code()


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Nobody may come for the end of a stream that was given up; asyncio need not complain of that."""
    if not task.cancelled():
        task.exception()
