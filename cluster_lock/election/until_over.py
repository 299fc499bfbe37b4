"""A term under way, until it is over: what people and the work itself ask of it, and who is to take over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from cluster_lock import clock
from cluster_lock.aio import end
from cluster_lock.host.patience import Patience
from cluster_lock.observer import Observer
from cluster_lock.session.requests import Reply
from cluster_lock.values import EndCode, EndReason, Timing

from .leadership import StepDown, Term
from .source import HeldLock

log = logging.getLogger("cluster_lock.election")

PATIENCE = 0.5
"""What a body that keeps to its drain and its cancel_grace may need beyond them to return."""


async def until_over(
    term: Term,
    held: HeldLock,
    work: asyncio.Task[Any],
    timing: Timing,
    observer: Observer,
    more_for_threads: Callable[[Term], float],
) -> None:
    """Until the lock is lost, the work has ended, or was asked to and had its time. `more_for_threads(term)`: seconds
    beyond that time."""
    lost = asyncio.ensure_future(held.wait_lost())
    requested = asyncio.ensure_future(term.wait_request())
    asked = asyncio.ensure_future(_relay(term, held))
    inviting: asyncio.Task[str | None] | None = None
    try:
        while True:
            await asyncio.wait((work, lost, requested), return_when=asyncio.FIRST_COMPLETED)
            if lost.done() or work.done():
                return
            request = requested.result()
            inviting = asyncio.ensure_future(_find_heir(held, request, timing.settle))
            await asyncio.wait((work, lost, inviting), return_when=asyncio.FIRST_COMPLETED)
            if lost.done() or work.done():
                return
            heir = inviting.result()
            if heir is None and request.conditional:
                if term.request is request:  # and not one that came meanwhile, without a condition
                    why = _nobody(request.to)
                    log.info("%s: leading on, nobody is able to take over: %s (%s)", held.name, why, request.reason)
                    term.decline_step_down()
                    if request.ask is not None:
                        held.reply(Reply(request.ask.number, declined=why))
                requested = asyncio.ensure_future(term.wait_request())
                continue
            fields = about(held, request.reason)
            log.info("%s: stepping down, heir %s: %s", held.name, heir or "nobody", request.reason, extra=fields)
            term.begin_step_down(heir)
            observer.step_down_began(held.name, request.reason, heir)
            limit = timing.drain + timing.cancel_grace + PATIENCE
            await Patience().wait((work, lost), limit)
            if not (work.done() or lost.done()) and (more := more_for_threads(term)):
                await Patience().wait((work, lost), more)
            return
    finally:
        await end((lost, requested, asked, *([inviting] if inviting is not None else [])))
        if not asked.cancelled():
            asked.exception()  # nobody listens any more: whatever broke that breaks the lease too


async def _find_heir(held: HeldLock, request: StepDown, settle: float) -> str | None:
    if request.conditional and held.origin.settles:
        # Before that the lock would be released at the end instead of handed over, and go to anybody.
        await asyncio.sleep(max(0.0, held.since + settle - clock.now()))
    return await held.find_heir(request.willing, request.to)


async def _relay(term: Term, held: HeldLock) -> None:
    """A request of a person, over the backend, becomes a request to the term, unless there is one already."""
    while True:
        ask = await held.wait_asked()
        term.step_down(f"{ask.by} asked for it", to=ask.to, ask=ask)
        if term.request is not None and term.request.ask != ask and term.request.conditional:
            held.reply(Reply(ask.number, declined=f"it looks for an heir already ({term.request.reason})"))


def _nobody(to: str | None) -> str:
    if to is None:
        return "nobody stands by who answered its invitation"
    return f"{to} does not stand by, or did not answer its invitation"


def ended_by(request: StepDown | None) -> EndReason:
    """Why a term ended that was not lost."""
    if request is None:
        return EndReason("the work is done", EndCode.WORK_DONE)
    return EndReason(f"stepped down: {request.reason}", request.reason.code)


def about(held: HeldLock, reason: str | None = None) -> dict[str, Any]:
    """The fields of a structured log line about a term."""
    return {"lock": held.name, "term": held.fencing_token, **({"reason": reason} if reason else {})}
