"""A program at the other end of a pipe, as its keeper sees it: what it asks for, its signs of life, the pipe's end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from cluster_lock.health import Board
from cluster_lock.host.patience import Patience
from cluster_lock.session import Session
from cluster_lock.values import Timing

from .link import LONGEST_LINE, PipeLink
from .outbox import Outbox
from .relay import Relay
from .telling import told

DEAF_FOR = 1.0


class Caller:
    """`pollers`: what it said last of its work. `alive_at`: when, by `patience`, it last gave a sign of life, None
    before the first. `asks`: it has asked for a lock; until then it is starting, and may take its time (imports,
    startup hooks). `left_at`: when it closed its end of the pipe: it leads nothing any more, and what it still does is
    its own. `wrong`: done, with the reason, when it must be ended."""

    def __init__(self, session: Session, board: Board, scope: str) -> None:
        self.wrong: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.patience = Patience()
        self._session, self._board, self._scope = session, board, scope
        self._loop = asyncio.get_running_loop()
        self._pipe: socket.socket | None = None
        self._begin()

    def _begin(self) -> None:
        """Another program, of which nothing has been heard."""
        self.link = PipeLink(self._send)
        self.relay = Relay(self._session, self.link, asked=self._asked, overdue=self._overdue, scope=self._scope)
        self.left_at: float | None = None
        self._handovers: Mapping[str, Mapping[str, Any]] | None = None
        """What it left when it was about to put another program in its place; None: it was not."""
        self._unread = b""
        self._forget_signs()
        self.link.events["alive"] = self._alive
        self.link.events["exec"] = self._execs
        self.link.events["observed"] = lambda what, arguments: told(self._board, what, arguments)

    def _forget_signs(self) -> None:
        self.alive_at: float | None = None
        self.asks = False
        self.pollers: Sequence[Mapping[str, Any]] = ()
        self._deaf_since: float | None = None

    def trouble(self, timing: Timing) -> str | None:
        """Why it has to be ended, if it has to."""
        if self.wrong.done():
            return self.wrong.result()
        if self.left_at is not None:
            limit = time_to_stop(timing)
            overdue = self.patience.seconds() - self.left_at > limit
            return f"it has not ended {limit:g} s after it had left" if overdue else None
        if self.is_silent(timing.stall_limit):
            return f"its loop has given no sign of life for {timing.stall_limit:g} s"
        if (lock := self.deaf) is not None:
            return f"{lock} is deaf: it should hear of updates, and none of its polls ends"
        return None

    def is_silent(self, limit: float) -> bool:
        """Does it lead, or stand by, and has its loop given no sign of life for so many seconds?"""
        return self.asks and self.alive_at is not None and self.patience.seconds() - self.alive_at > limit

    @property
    def deaf(self) -> str | None:
        """A poller that should hear of updates and does not, for a second now: right after a sleep of this host it has
        not looked yet what came meanwhile."""
        if self._deaf_since is None or self.patience.seconds() - self._deaf_since < DEAF_FOR:
            return None
        return _deaf(self.pollers)

    def _asked(self) -> None:
        if not self.asks:
            self.asks = True
            self.alive_at = self.patience.seconds()  # the last one may be from before a startup hook that blocked

    def _alive(self, pollers: Sequence[Mapping[str, Any]]) -> None:
        self._handovers = None  # it is there still
        self.alive_at, self.pollers = self.patience.seconds(), pollers
        if _deaf(pollers) is None:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = self.alive_at

    def _execs(self, handovers: Mapping[str, Mapping[str, Any]]) -> None:
        """If its pipe comes to an end now, and it lives, it was by that. An exec may fail, and says so to nobody."""
        self._handovers = handovers

    def _overdue(self, name: str) -> None:
        self._is_wrong(f"{name} is lost, and the work under it has not ended in time")

    def _is_wrong(self, reason: str) -> None:
        if not self.wrong.done():
            self.wrong.set_result(reason)

    # The pipe

    def _open(self, pipe: socket.socket) -> None:
        self._pipe, self._outbox = pipe, Outbox(pipe)
        self._loop.add_reader(pipe, self._read)

    def _send(self, line: bytes) -> None:
        if len(self._outbox) > LONGEST_LINE:
            self._is_wrong("it does not read its pipe")
            return
        self._outbox.send(line)

    def _read(self) -> None:
        assert self._pipe is not None
        came = received(self._pipe)
        if came:
            self._heard(came)
        elif came is not None:
            self._left(self._pipe)

    def _left(self, pipe: socket.socket) -> None:
        """Its pipe has come to its end."""
        raise NotImplementedError

    def _heard(self, came: bytes) -> None:
        *lines, self._unread = (self._unread + came).split(b"\n")
        for line in lines:
            self.link.received(line)
        if self.link.closed is not None or len(self._unread) > LONGEST_LINE:
            self._is_wrong("what it says on its pipe is not understood")

    def _hang_up(self, reason: str) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            self._outbox.close()
            self._pipe.close()
            self._pipe = None
        self.link.close(reason)


def time_to_stop(timing: Timing) -> float:
    """What a program may need from the request to stop to its end: an invitation, the drain, the hand-over."""
    return timing.invite + timing.drain + timing.cancel_grace + 2 * timing.request


def received(pipe: socket.socket) -> bytes | None:
    """What has come; nothing at its end; None if there is nothing now."""
    try:
        return pipe.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _deaf(pollers: Sequence[Mapping[str, Any]]) -> str | None:
    return next((str(each["lock"]) for each in pollers if each.get("deaf")), None)
