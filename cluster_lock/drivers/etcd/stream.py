"""One gRPC stream, read without the traps of `grpc.aio`.

There a cancelled `read()` cancels the whole stream, a stream that the server cancels looks like a cancellation of ours,
and a write to a stream that is over raises an error of grpc's own, which also takes the place of what the server said.
Here each read is a task of its own: waiting for it may end, and go on later; and the server's words are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cluster_lock import clock

_LATE = 0.5
"""Seconds to wait for what the server said when grpc.aio has put an error of its own in its place."""


class StreamEnded(Exception):
    """A stream ended, by the server or by the network; the text is what was said about it."""


class Stream:
    """Sends `request` on the stream `call`; `answer` gives what comes back, one at a time. `close` it at the end.

    `check` is given each answer, and raises for one that must not be listened to. `failure`: grpc's AioRpcError.
    """

    def __init__(self, call: Any, request: Any, check: Callable[[Any], None], failure: type[Any]) -> None:
        self._call = call
        self._check = check
        self._failure = failure
        self._end: tuple[Any, str | None] | None = None
        call.add_done_callback(self._keep_end)
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
        try:
            await self._call.write(request)
        except asyncio.InvalidStateError:
            pass  # it is over already, and the read says why
        except self._failure as error:
            code, details = await self._true_end()
            raise self._failure(code, error.initial_metadata(), error.trailing_metadata(), details) from error
        return await self._call.read()

    def _keep_end(self, call: Any) -> None:
        self._end = _at_once(call.code()), _at_once(call.details())

    async def _true_end(self) -> tuple[Any, str | None]:
        """Code and words of the server. They may come before grpc.aio's own error, which is always INTERNAL and takes
        their place, or right after."""
        until = clock.now() + _LATE
        while (self._end is None or self._end[0].name == "INTERNAL") and clock.now() < until:
            await asyncio.sleep(_LATE / 50)
            self._end = await self._call.code(), await self._call.details()
        assert self._end is not None
        return self._end

    async def _half_close(self) -> None:
        await self._call.done_writing()
        await self._call.code()


def _at_once(told: Coroutine[Any, Any, Any]) -> Any:
    """What it gives, as it does without waiting once the stream is over."""
    try:
        told.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Nobody may come for the end of a stream that was given up; asyncio need not complain of that."""
    if not task.cancelled():
        task.exception()
