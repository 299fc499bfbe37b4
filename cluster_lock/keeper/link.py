"""Both ends of the pipe between a keeper and its worker: JSON lines, and what they mean.

    {"call": 7, "verb": "take", "with": {"name": "telegram/42"}}    a question
    {"answer": 7, "value": ...}  {"answer": 7, "error": ["LockLost", "..."]}
    {"cancel": 7}                                                   the caller does not wait any more
    {"event": "lease", "deadline": 1234.5, "now": 1223.1, "clock": "boottime"}
    {"event": "hello", "version": "0.1.0"}                          the worker's first line, and the answer

Either end may ask. The moments are those of `clock.now()`, which all processes of a host share.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster_lock import errors
from cluster_lock.errors import BackendUnavailable, ClusterLockError, ConfigError, KeeperMismatch, in_words

log = logging.getLogger("cluster_lock.keeper")

LONGEST_LINE = 1 << 20

Handler = Callable[..., Awaitable[Any]]
Listener = Callable[..., None]


class LinkClosed(BackendUnavailable):
    """The process at the other end is gone, or says what nobody understands."""


class PipeLink:
    """One end. Belongs to one event loop. `send` writes a line without waiting."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.verbs: dict[str, Handler] = {}
        """What the other end may ask for: each is called with the keywords that it sends."""
        self.events: dict[str, Listener] = {}
        self.closed: str | None = None
        self._send = send
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._numbers = 0

    def tell(self, event: str, **content: Any) -> None:
        """Send an event. Nobody answers; nothing happens if nobody is there any more."""
        self._write({"event": event, **content})

    async def call(self, verb: str, **content: Any) -> Any:
        """Ask, and wait for the answer, for ever: what limits it is the end of the other process, or the caller.

        Raises what the other end raised, if it is one of ours, and LinkClosed.
        """
        if self.closed is not None:
            raise LinkClosed(self.closed)
        self._numbers += 1
        number = self._numbers
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._write({"call": number, "verb": verb, "with": content})
        try:
            return await answer
        except asyncio.CancelledError:
            self._write({"cancel": number})
            raise
        finally:
            del self._asked[number]

    def received(self, line: bytes) -> None:
        """A line has come. One that is not understood closes the link: the two are not of one version."""
        try:
            message = json.loads(line)
            if "event" in message:
                if (listener := self.events.get(message.pop("event"))) is not None:
                    listener(**message)
            elif "call" in message:
                self._begin(message["call"], message["verb"], message["with"])
            elif "answer" in message:
                self._answered(message)
            elif (task := self._answering.get(message["cancel"])) is not None:
                task.cancel()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            log.error("a line on the pipe is not understood (%s): %.200r", error, line)
            self.close("a line on the pipe was not understood")

    def close(self, reason: str) -> None:
        """Nothing comes any more: the one that waits for an answer hears of it, and what was asked here is
        cancelled."""
        if self.closed is not None:
            return
        self.closed = reason
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkClosed(reason))
        for task in self._answering.values():
            task.cancel()

    async def ended(self) -> None:
        """Wait until what was asked for here has come to its end. After `close`."""
        if self._answering:
            await asyncio.wait(self._answering.values())

    def _begin(self, number: int, verb: str, content: Mapping[str, Any]) -> None:
        if self.closed is None:
            task = asyncio.get_running_loop().create_task(self._answer(number, self.verbs[verb], content))
            self._answering[number] = task
            task.add_done_callback(lambda _: self._answering.pop(number, None))

    async def _answer(self, number: int, handler: Handler, content: Mapping[str, Any]) -> None:
        try:
            value = await handler(**content)
        except ClusterLockError as error:
            self._write({"answer": number, "error": [type(error).__name__, str(error)]})
        except Exception as error:
            # A bug here, or of the one that answers on our behalf: said here, and the caller does not wait for ever.
            log.exception("the answer to a question on the pipe failed")
            self._write({"answer": number, "error": [ClusterLockError.__name__, f"it failed there: {in_words(error)}"]})
        else:
            self._write({"answer": number, "value": value})

    def _answered(self, message: Mapping[str, Any]) -> None:
        answer = self._asked.get(message["answer"])
        if answer is None or answer.done():
            return  # the caller is gone
        if "error" in message:
            kind, text = message["error"]
            answer.set_exception(_error(kind, text))
        else:
            answer.set_result(message["value"])

    def _write(self, message: Mapping[str, Any]) -> None:
        if self.closed is None:
            self._send(written(message))


def written(message: Mapping[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def mismatch(theirs: str, ours: str) -> KeeperMismatch:
    """The two ends are not of one version."""
    return KeeperMismatch(
        f"the keeper is cluster-lock {theirs}, and its worker {ours}: it was upgraded while the keeper ran. Start the"
        " keeper again"
    )


def _error(kind: str, text: str) -> ClusterLockError:
    found = getattr(errors, kind, ClusterLockError)
    if not (isinstance(found, type) and issubclass(found, ClusterLockError)):
        found = ClusterLockError
    return found([text]) if found is ConfigError else found(text)
