"""The keeper's side of a link: takes locks for the worker, and tells it what becomes of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end, finish
from cluster_lock.election.source import HeldLock, SessionLockSource
from cluster_lock.errors import LockLost
from cluster_lock.observer import Ending
from cluster_lock.session import Session
from cluster_lock.session.requests import Reply
from cluster_lock.values import GUARD_BEFORE

from .left_over import end_left_over
from .link import LinkClosed, PipeLink


class Relay:
    """What one worker has asked for. `holdings`: what it holds, by lock; what runs under them runs in the worker."""

    def __init__(
        self,
        session: Session,
        link: PipeLink,
        *,
        asked: Callable[[], None],
        overdue: Callable[[str], None],
        scope: str = "",
    ) -> None:
        """`asked()` is called whenever the worker asks for a lock, `overdue(name)` when the work under a lost lock has
        not ended in time. `scope`: of a plan."""
        self.holdings: dict[str, HeldLock] = {}
        self.wanted: set[str] = set()
        """The locks that the worker stands by for."""
        self._session, self._link = session, link
        self._source = SessionLockSource(session)
        self._asked, self._overdue, self._scope = asked, overdue, scope
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dropping: set[asyncio.Task[None]] = set()
        link.events["drop"] = self._drop
        link.verbs |= {
            "take": self._take,
            "find_heir": self._find_heir,
            "verify": self._verify,
            "end": self._end,
            "wait_asked": self._wait_asked,
        }
        link.events["reply"] = self._reply

    def renewed(self, deadline: float) -> None:
        """The lease was renewed: whatever is held may go on until `deadline`."""
        self._link.tell("lease", deadline=deadline, now=clock.now(), clock=clock.NAME)

    async def give_back(self, handovers: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """The worker is gone, with all that it started, or is another program now: release what it held, at once.
        `handovers`: what it left, by lock."""
        await self._link.ended()
        if self._dropping:
            await asyncio.wait(self._dropping)
        for held in list(self.holdings.values()):
            await self._give(held, (handovers or {}).get(held.name, held.inherited))

    async def _take(self, name: str) -> Mapping[str, Any]:
        """The lock, as soon as it is ours. Cancelled: the one that wanted it does not any more."""
        self._asked()
        async with self._turns[name]:
            self.wanted.add(name)
            taking = asyncio.ensure_future(self._source.take(name))
            answering = asyncio.ensure_future(self._source.answer_invitations(name, lambda: self._answer(name)))
            try:
                await asyncio.wait((taking, answering), return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    answering.result()  # it never returns, so this raises what broke it
                held = taking.result()
                # However it came: what was left here may be from a term before that of the one that gave the lock away.
                await end_left_over(self._scope)
                # Whatever cancels us from here on: it is given back by `drop` or `give_back`.
                self._hold(held)
            except BaseException:
                await finish(_put_back(taking))
                raise
            finally:
                self.wanted.discard(name)
                await finish(end([answering]))
            return {
                "token": held.fencing_token,
                "origin": held.origin,
                "inherited": held.inherited,
                "deadline": self._session.context.lease.deadline,
            }

    def _drop(self, name: str) -> None:
        """The worker went away from a lock that we may have told it about meanwhile."""
        task = asyncio.ensure_future(self._give_if_held(name))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _give_if_held(self, name: str) -> None:
        async with self._turns[name]:
            if (held := self.holdings.get(name)) is not None:
                await self._give(held, held.inherited)

    def _hold(self, held: HeldLock) -> None:
        self.holdings[held.name] = held
        self._telling[held.name] = asyncio.ensure_future(self._tell_loss(held))

    async def _tell_loss(self, held: HeldLock) -> None:
        reason = await held.wait_lost()
        self._link.tell("lost", name=held.name, token=held.fencing_token, reason=reason.to_json())
        # Its own guard stands ready for the deadline, but a stopped worker's does not fire, and a kill takes a moment.
        await asyncio.sleep(max(0.1, self._session.timing.stop_time - 2 * GUARD_BEFORE))
        self._overdue(held.name)

    async def _answer(self, name: str) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self._link.call("answer", name=name)
        except LinkClosed as error:
            raise TimeoutError from error  # nobody is there to take over
        return answer

    async def _find_heir(self, name: str, token: int, conditional: bool, to: str | None) -> str | None:
        return await self._held(name, token).find_heir(
            (lambda answer: self._link.call("willing", name=name, answer=answer)) if conditional else None, to
        )

    async def _wait_asked(self, name: str, token: int) -> Mapping[str, Any]:
        return asdict(await self._held(name, token).wait_asked())

    def _reply(self, name: str, token: int, reply: Mapping[str, Any]) -> None:
        held = self.holdings.get(name)
        if held is not None and held.fencing_token == token:
            held.reply(Reply(**reply))

    async def _verify(self, name: str, token: int) -> None:
        await self._held(name, token).verify()

    async def _end(self, name: str, token: int, handover: Mapping[str, Any]) -> Ending:
        return await self._give(self._held(name, token), handover)

    async def _give(self, held: HeldLock, handover: Mapping[str, Any]) -> Ending:
        """From the moment on at which it is asked for, nothing of the term runs any more."""
        del self.holdings[held.name]
        await end([self._telling.pop(held.name)])
        return await held.end(handover)

    def _held(self, name: str, token: int) -> HeldLock:
        held = self.holdings.get(name)
        if held is None or held.fencing_token != token:
            raise LockLost(f"{name}: the term {token} is over")
        return held


async def _put_back(taking: asyncio.Future[HeldLock]) -> None:
    await end([taking])
    if not taking.cancelled() and taking.exception() is None:
        held = taking.result()
        await held.end(held.inherited)
