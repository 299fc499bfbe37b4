"""What an election needs from the owner of the session: a way to take locks, and what it may do with a lock it has.

The session is in the same process (`SessionLockSource`), or behind a pipe (`cluster_lock.keeper`). The election does
not know which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cluster_lock.observer import Ending
from cluster_lock.session.invitation import Answer, Willing, answer_invitations
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import EndReason, Origin, Timing

if TYPE_CHECKING:
    from cluster_lock.session import Session


class HeldLock(Protocol):
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
    def loss(self) -> EndReason | None: ...
    @property
    def stop_at(self) -> float: ...
    def is_valid(self) -> bool: ...
    async def wait_lost(self) -> EndReason: ...
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


class LockSource(Protocol):
    """A source of holdings."""

    @property
    def timing(self) -> Timing: ...

    async def take(self, name: str) -> HeldLock:
        """Wait for the lock `name`. The caller ends all work when it is lost, and calls `end` after it. Raises what
        makes it impossible to get a lease, and TokenWentBack. When cancelled it leaves nothing behind."""
        ...

    async def answer_invitations(self, name: str, answer: Answer | None) -> None:
        """Answer each invitation to take `name` over, until cancelled."""
        ...


class SessionLockSource:
    """The locks of a session of this process. `wait=False`: `take` raises HeldElsewhere instead of waiting for somebody
    else's."""

    def __init__(self, session: Session, *, wait: bool = True) -> None:
        self._session, self._wait = session, wait

    @property
    def timing(self) -> Timing:
        return self._session.timing

    async def take(self, name: str) -> HeldLock:
        return await self._session.lock(name).acquire(wait=self._wait, listens=True)

    async def answer_invitations(self, name: str, answer: Answer | None) -> None:
        await answer_invitations(self._session.context, name, answer)
