"""Watches: one stream for a span of keys, kept from one wait to the next.

A new watch from an old revision makes etcd read its history since then, and tells what it finds up to 100 ms late. A
stream that goes on costs nothing and tells at once, so a wait leaves its stream to the next one that goes on where it
ended. Nobody is obliged to come back: a stream that is not taken up soon is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster_lock import clock

from .library import Library
from .link import EtcdLink, Metadata
from .node import Node
from .stream import Stream, StreamEnded

Span = tuple[bytes, bytes]
"""From the first key to before the second."""

_KEPT = 1.0
"""Seconds for which a stream waits for its next wait."""
_OPENING = 1.0
"""Seconds by which a wait may be late because its watch is not answered."""
# A server that has lost its cluster ends the stream instead of leaving us to listen to nothing.
_REQUIRE_LEADER: Metadata = (("hasleader", "true"),)


class Forgotten(Exception):
    """etcd does not have the changes since that revision any more, or never had: read afresh."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The events for wanted keys, oldest first, and the revision up to which everything was heard."""

    events: list[Any]
    revision: int
    epoch: int


class _Watch:
    """One open watch. `revision`: everything up to it was heard."""

    def __init__(self, stream: Stream, node: Node, revision: int, epoch: int) -> None:
        self.stream = stream
        self.node = node
        self.revision = revision
        self.epoch = epoch

    def digest(self, answer: Any) -> list[Any]:
        """The events of an answer. Raises Forgotten, and StreamEnded if etcd does not let us watch."""
        if answer.compact_revision:
            raise Forgotten
        if answer.canceled:  # a refused watch is created and canceled in one answer: look here first
            raise StreamEnded(answer.cancel_reason or "the watch was canceled")
        self.epoch = answer.header.raft_term
        if answer.events:
            self.revision = answer.events[-1].kv.mod_revision
        elif not answer.created:  # then it is a notice of progress
            self.revision = max(self.revision, answer.header.revision)
        return list(answer.events)


class Watches:
    def __init__(self, library: Library, link: EtcdLink) -> None:
        self._rpc = library.rpc
        self._errors = (library.grpc.aio.AioRpcError, StreamEnded)
        self._link = link
        self._kept: dict[Span, tuple[_Watch, asyncio.TimerHandle]] = {}

    async def wait(self, span: Span, since: int, at_most: float, wanted: Callable[[bytes], bool], doing: str) -> Heard:
        """Events of `wanted` keys after the revision `since`, or none if there are none within `at_most` seconds.

        Raises Forgotten.
        """
        until = clock.now() + at_most
        watch = self._take(span, since) or await self._open(span, since, at_most, doing)
        try:
            events: list[Any] = []
            while not events:
                answer = await watch.stream.answer(until - clock.now())
                if answer is None:
                    break
                events = [event for event in watch.digest(answer) if wanted(event.kv.key)]
        except self._errors as error:
            watch.stream.close()
            raise self._link.mapped(error, doing, watch.node) from error
        except BaseException:
            watch.stream.close()
            raise
        self._keep(span, watch)
        return Heard(events, watch.revision, watch.epoch)

    def close(self) -> None:
        """End the streams that nobody has taken up."""
        for span in list(self._kept):
            self._drop(span)

    async def _open(self, span: Span, since: int, at_most: float, doing: str) -> _Watch:
        first, end = span
        request = self._rpc.WatchRequest(
            create_request=self._rpc.WatchCreateRequest(
                key=first, range_end=end, start_revision=since + 1, progress_notify=True
            )
        )

        async def attempt(node: Node, metadata: Metadata, limit: float) -> _Watch:
            stream = self._link.stream(node, node.watches.Watch(metadata=metadata + _REQUIRE_LEADER), request)
            try:
                answer = await stream.answer(limit)
                if answer is None:
                    raise TimeoutError
                watch = _Watch(stream, node, since, 0)
                watch.digest(answer)
                if answer.header.revision < since:
                    raise Forgotten  # the store went back (a restore): a watch would be silent until it has caught up
            except BaseException:
                stream.close()
                raise
            return watch

        deadline = min(self._link.deadline(), clock.now() + at_most + _OPENING)
        return await self._link.rotate(attempt, doing, deadline=deadline)

    def _take(self, span: Span, since: int) -> _Watch | None:
        """The kept stream that goes on at `since`."""
        if span not in self._kept:
            return None
        watch, timer = self._kept.pop(span)
        timer.cancel()
        # Requests go elsewhere by now: that server did not answer one, and may be as deaf here.
        if watch.revision != since or watch.node is not self._link.preferred:
            watch.stream.close()
            return None
        return watch

    def _keep(self, span: Span, watch: _Watch) -> None:
        self._drop(span)  # somebody else's, who waits for the same
        timer = asyncio.get_running_loop().call_later(_KEPT, self._drop, span)
        self._kept[span] = watch, timer

    def _drop(self, span: Span) -> None:
        if span in self._kept:
            watch, timer = self._kept.pop(span)
            timer.cancel()
            watch.stream.close()
