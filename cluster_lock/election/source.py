"""What an election needs of whoever owns the session: a way to take locks, and what it may do with one it has.

The session is in the same process (`SessionContest`), or behind a pipe (`cluster_lock.keeper`). The election does not
know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cluster_lock import clock
from cluster_lock.observer import Ending
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import REQUEST, Entry, Origin, Record, Timing

from .invitation import answer_invitations, invite, reply_to
from .leadership import Answer, Willing

if TYPE_CHECKING:
    from cluster_lock.session import Hold, Session

REFUSAL_PAUSE = 0.5
"""Seconds between two refusals: whoever asks in a loop does not make the leader write in one."""


class Holding(Protocol):
    """A lock that is held, as `cluster_lock.session.Hold` describes it."""

    @property
    def name(self) -> str: ...
    @property
    def fencing_token(self) -> int: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def inherited(self) -> Mapping[str, Any]: ...
    @property
    def since(self) -> float: ...
    @property
    def loss(self) -> str | None: ...
    @property
    def stop_at(self) -> float: ...
    def is_valid(self) -> bool: ...
    async def wait_lost(self) -> str: ...
    async def verify(self) -> None: ...

    async def wait_asked(self) -> Ask:
        """Return the next request of a person, over the backend, for this very term to end."""
        ...

    def reply(self, reply: Reply) -> None:
        """Answer such a request. Does not wait, and what comes of it is not known."""
        ...

    async def find_heir(self, willing: Willing | None, to: str | None = None) -> str | None:
        """Invite contenders, or `to` alone; the instance that `end` will give the lock to, or None if nobody answered
        (with something for which `willing` is true)."""
        ...

    async def end(self, handover: Mapping[str, Any]) -> Ending:
        """The work has ended: give the lock to the heir that was found, or free it. What became of it."""
        ...


class Contest(Protocol):
    """A source of holdings."""

    @property
    def timing(self) -> Timing: ...

    async def take(self, name: str) -> Holding:
        """Wait for the lock `name`. The caller ends all work when it is lost, and calls `end` after it. Raises what
        makes it impossible to get a lease, and TokenWentBack. When cancelled it leaves nothing behind."""
        ...

    async def answer_invitations(self, name: str, answer: Answer | None) -> None:
        """Answer each invitation to take `name` over, until cancelled."""
        ...


class SessionContest:
    """The locks of a session of this process. `wait=False`: `take` raises HeldElsewhere instead of waiting for somebody
    else's."""

    def __init__(self, session: Session, *, wait: bool = True) -> None:
        self._session, self._wait = session, wait

    @property
    def timing(self) -> Timing:
        return self._session.timing

    async def take(self, name: str) -> Holding:
        watch, key = self._session.watch, REQUEST + name
        watch.follow(key)  # before the grant, so that it costs no request while nobody works
        try:
            hold = await self._session.lock(name).acquire(wait=self._wait)
        except BaseException:
            watch.unfollow(key)
            raise
        return _Held(self._session, hold)

    async def answer_invitations(self, name: str, answer: Answer | None) -> None:
        await answer_invitations(self._session, name, answer)


class _Held:
    def __init__(self, session: Session, hold: Hold) -> None:
        self.name, self.fencing_token = hold.name, hold.fencing_token
        self.origin, self.inherited, self.since = hold.origin, hold.inherited, hold.since
        self.is_valid, self.wait_lost, self.verify = hold.is_valid, hold.wait_lost, hold.verify
        self._session, self._hold = session, hold
        self._heir: Entry | None = None
        self._found = hold.since
        self._replied = asyncio.Event()
        self._replied.set()

    @property
    def loss(self) -> str | None:
        return self._hold.loss

    @property
    def stop_at(self) -> float:
        return self._hold.stop_at

    async def wait_asked(self) -> Ask:
        while True:
            ask, asker = await self._hold.wait_asked(), self._hold.asker or ""
            wait = self._session.pace.wait(self.name, asker)
            if wait <= 0:
                self._session.pace.heeded(self.name, asker)
                return ask
            self.reply(Reply(ask.number, declined=f"a step-down was asked for a moment ago; again in {wait:.1f} s"))
            await asyncio.sleep(REFUSAL_PAUSE)

    def reply(self, reply: Reply) -> None:
        """One after the other: each is taken away before the next is given."""
        before, self._replied = self._replied, asyncio.Event()
        self._session.later(self._reply(reply, before, self._replied))

    async def _reply(self, reply: Reply, before: asyncio.Event, done: asyncio.Event) -> None:
        try:
            await before.wait()
            await reply_to(self._session, self._hold, reply)
        finally:
            done.set()

    async def find_heir(self, willing: Willing | None, to: str | None = None) -> str | None:
        self._heir = await invite(self._session, self._hold, willing, to)
        self._found = clock.now()  # from now on no new work is taken
        record = Record.from_bytes(self._heir.record or b"") if self._heir is not None else None
        return record.instance if record is not None else None

    async def end(self, handover: Mapping[str, Any]) -> Ending:
        try:
            return await self._hold.end(handover, self._heir, gap=clock.now() - self._found)
        finally:
            self._session.watch.unfollow(REQUEST + self.name)
