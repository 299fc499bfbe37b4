"""Find an heir before the work stops: the leader asks one contender after the other, and transfers only to one that
answered. A contender that is dead, on its way out, or cut off does not answer, and the next is asked; if nobody does,
the lock is released (interleaving M3: the oldest contender is the likeliest dead one).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import INVITE, LEADER, REPLY, REQUEST, STANDBY, Entry, Record, mapping_in

from .leadership import Answer, Willing

if TYPE_CHECKING:
    from cluster_lock.session import Hold, Session

log = logging.getLogger("cluster_lock.invitation")

AT_MOST = 4
"""So many contenders are asked: whoever steps down has a drain and a stop time to keep."""


async def invite(session: Session, hold: Hold, willing: Willing | None = None, to: str | None = None) -> Entry | None:
    """The contender record of the first contender that answered, or None. Takes `timing.invite` per contender asked.
    `to`: ask the contender of this instance only."""
    if not session.driver.traits.transfers:
        return None
    key = INVITE + hold.name
    try:
        async with asyncio.timeout(session.timing.request + AT_MOST * session.timing.invite):
            for contender in await _contenders(session, hold, to):
                answered = await _ask(session, hold, key, contender)
                if answered is not None and (willing is None or await _is_true(willing(answered[1]))):
                    return answered[0]
    except (BackendUnavailable, BackendRefused, LeaseExpired, TimeoutError) as error:
        log.info("%s: no heir could be invited: %s", hold.name, str(error) or "no answer in time")
    finally:
        session.later(_withdraw(session, hold, key))
    return None


async def _is_true(answer: bool | Awaitable[bool]) -> bool:
    return await answer if inspect.isawaitable(answer) else answer


async def _contenders(session: Session, hold: Hold, to: str | None = None) -> list[Entry]:
    entries = await session.driver.scan(STANDBY)
    waiting = []
    for entry in entries:
        record = Record.from_bytes(entry.record or b"")
        if record is None or hold.name not in record.names or entry.lease in (None, hold.grant.lease.id):
            continue
        if to in (None, record.instance):
            waiting.append((record.instance != session.instance, entry))
    # Of our own name first: it is to take this very process's place, and has been started for that.
    waiting.sort(key=lambda contender: contender[0])
    return [entry for _, entry in waiting[:AT_MOST]]


async def _ask(session: Session, hold: Hold, key: str, contender: Entry) -> tuple[Entry, Mapping[str, Any]] | None:
    """Invite one contender; its record with the answer, and the answer, or None if it did not within
    `timing.invite`."""
    # The number makes each invitation its own: an answer to an earlier one, even of this term, is not an answer to it.
    number = secrets.token_hex(4)
    question = {"to": contender.lease, "token": hold.fencing_token, "by": session.instance, "number": number}
    until = clock.now() + session.timing.invite
    with session.watch.following(contender.name):
        await session.driver.announce(hold.grant.lease, key, json.dumps(question).encode())
        while (left := until - clock.now()) > 0:
            news = session.watch.news
            entry = session.watch.entries.get(contender.name)
            if entry is not None and entry.lease == contender.lease:
                record = Record.from_bytes(entry.record or b"")
                answer = record.answer.get(hold.name) if record is not None else None
                if isinstance(answer, dict) and answer.get("number") == number:
                    return entry, answer
            await session.watch.changed(news, at_most=left)
    log.info("%s: %s did not answer the invitation", hold.name, contender.name)
    return None


async def _withdraw(session: Session, hold: Hold, key: str) -> None:
    try:
        async with asyncio.timeout(session.timing.request):
            await session.driver.withdraw(hold.grant.lease, key)
    except (BackendUnavailable, BackendRefused, LeaseExpired, TimeoutError) as error:
        log.debug("%s: %s ends with its lease: %s", hold.name, key, str(error) or "no answer in time")


async def reply_to(session: Session, hold: Hold, reply: Reply) -> None:
    """Answer a person's request, and take the answer away when the request is gone: with whoever asked, at the latest,
    or with the end of the term."""
    key = REPLY + hold.name
    try:
        async with asyncio.timeout(session.timing.request):
            await session.driver.announce(hold.grant.lease, key, reply.to_bytes())
    except (BackendUnavailable, BackendRefused, LeaseExpired, TimeoutError) as error:
        log.info("%s: who asked for a step-down gets no answer: %s", hold.name, str(error) or "no answer in time")
    else:
        while True:
            news = session.watch.news
            ask = Ask.of(session.watch.entries.get(REQUEST + hold.name))
            if ask is None or ask.number != reply.number:
                break
            await session.watch.changed(news, at_most=session.timing.ttl)
    await _withdraw(session, hold, key)


async def answer_invitations(session: Session, name: str, answer: Answer | None) -> None:
    """Answer each invitation to take `name` over, once, until cancelled. `answer()` adds what the leader should
    know."""
    answered: str | None = None
    while True:
        news = session.watch.news
        question = _question(session, name)
        if question is not None and question != answered and name in session.contender:
            answered = question
            more: Mapping[str, Any] = {}
            if answer is not None:
                try:
                    async with asyncio.timeout(session.timing.invite * 0.8):
                        more = await answer()
                except TimeoutError:
                    log.info("%s: not ready to take over in time, so not answering the invitation", name)
                    continue
                except Exception:
                    # Of the one who leads on our behalf, not ours: no reason to stand by no more.
                    log.exception("%s: no answer to the invitation, what it asks failed", name)
                    continue
            session.contender.answer(name, {**more, "number": question})
            await session.contender.write()
        await session.watch.changed(news)


def _question(session: Session, name: str) -> str | None:
    """The number of the invitation that stands for us now, or None. Only the holder of the lock may invite, and only
    our current lease (interleaving S9: another term's requests are void)."""
    entry, leader = session.watch.entries.get(INVITE + name), session.watch.entries.get(LEADER + name)
    if entry is None or leader is None or entry.lease is None or entry.lease != leader.lease:
        return None
    question, lease = mapping_in(entry.record or b""), session.current_lease
    if question is None or lease is None or question.get("to") != lease.id:
        return None
    number = question.get("number")
    return number if isinstance(number, str) else None
