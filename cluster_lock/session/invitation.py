"""Find an heir before the work stops.

The leader asks one contender after the other, and transfers only to one that answered. A contender that is dead,
stopping or cut off does not answer, and the next one is asked. If nobody answers, the lock is released
(docs/design.md#invite-first).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster_lock import clock
from cluster_lock.drivers.bounded import within
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.values import INVITE, LEADER, REPLY, REQUEST, STANDBY, Entry, Grant, Record, mapping_in

from .context import Context
from .requests import Ask, Reply

log = logging.getLogger("cluster_lock.invitation")

AT_MOST = 4
"""So many contenders are asked: a leader that steps down has a drain and a stop time to keep."""


Willing = Callable[[Mapping[str, Any]], bool | Awaitable[bool]]
"""Whether a leader steps down for a contender that answered this."""
Answer = Callable[[], Awaitable[Mapping[str, Any]]]
"""What a contender answers to an invitation: JSON."""


async def invite(
    context: Context, name: str, grant: Grant, willing: Willing | None = None, to: str | None = None
) -> Entry | None:
    """The contender record of the first contender that answered, or None. Takes `timing.invite` per contender asked.
    `to`: ask the contender of this instance only."""
    if not context.driver.traits.transfers:
        return None
    limit = context.timing.request + AT_MOST * context.timing.invite
    try:
        return await within(limit, context.driver.backend, _first_willing(context, name, grant, willing, to))
    except (BackendUnavailable, BackendRefused, LeaseExpired) as error:
        log.info("%s: no heir could be invited: %s", name, error)
        return None
    finally:
        context.background.later(_withdraw(context, name, grant, INVITE + name))


async def _first_willing(
    context: Context, name: str, grant: Grant, willing: Willing | None, to: str | None
) -> Entry | None:
    for contender in await _contenders(context, name, grant, to):
        answered = await _ask(context, name, grant, contender)
        if answered is not None and (willing is None or await _is_true(willing(answered[1]))):
            return answered[0]
    return None


async def _is_true(answer: bool | Awaitable[bool]) -> bool:
    return await answer if inspect.isawaitable(answer) else answer


async def _contenders(context: Context, name: str, grant: Grant, to: str | None) -> list[Entry]:
    instance, waiting = context.identity.instance, []
    for entry in await context.driver.scan(STANDBY):
        record = Record.from_bytes(entry.record or b"")
        if record is None or name not in record.names or entry.lease in (None, grant.lease.id):
            continue
        if to in (None, record.instance):
            waiting.append((record.instance != instance, entry))
    # Of our own name first: it is to take this very process's place, and has been started for that.
    waiting.sort(key=lambda contender: contender[0])
    return [entry for _, entry in waiting[:AT_MOST]]


async def _ask(context: Context, name: str, grant: Grant, contender: Entry) -> tuple[Entry, Mapping[str, Any]] | None:
    """Invite one contender; its record with the answer, and the answer, or None if it did not within
    `timing.invite`."""
    identity, watch = context.identity, context.watch
    # The number makes each invitation its own: an answer to an earlier one, even of this term, is not an answer to it.
    number, token = secrets.token_hex(4), identity.fencing_floor + grant.token
    question = {"to": contender.lease, "token": token, "by": identity.instance, "number": number}
    until = clock.now() + context.timing.invite
    with watch.following(contender.name):
        await context.driver.announce(grant.lease, INVITE + name, json.dumps(question).encode())
        while (left := until - clock.now()) > 0:
            news = watch.news
            entry = watch.entries.get(contender.name)
            if entry is not None and entry.lease == contender.lease:
                record = Record.from_bytes(entry.record or b"")
                answer = record.answer.get(name) if record is not None else None
                if isinstance(answer, dict) and answer.get("number") == number:
                    return entry, answer
            await watch.changed(news, at_most=left)
    log.info("%s: %s did not answer the invitation", name, contender.name)
    return None


async def _withdraw(context: Context, name: str, grant: Grant, key: str) -> None:
    try:
        await context.driver.withdraw(grant.lease, key)
    except (BackendUnavailable, BackendRefused, LeaseExpired) as error:
        log.debug("%s: %s ends with its lease: %s", name, key, error)


async def reply_to(context: Context, name: str, grant: Grant, reply: Reply) -> None:
    """Answer a person's request, and take the answer away when the request is gone: with the one that asked, at the
    latest, or with the end of the term."""
    try:
        await context.driver.announce(grant.lease, REPLY + name, reply.to_bytes())
    except (BackendUnavailable, BackendRefused, LeaseExpired) as error:
        log.info("%s: who asked for a step-down gets no answer: %s", name, error)
    else:
        while True:
            news = context.watch.news
            ask = Ask.of(context.watch.entries.get(REQUEST + name))
            if ask is None or ask.number != reply.number:
                break
            await context.watch.changed(news, at_most=context.timing.ttl)
    await _withdraw(context, name, grant, REPLY + name)


async def answer_invitations(context: Context, name: str, answer: Answer | None) -> None:
    """Answer each invitation to take `name` over, once, until cancelled. `answer()` adds what the leader should
    know."""
    answered: str | None = None
    while True:
        news = context.watch.news
        question = _question(context, name)
        if question is not None and question != answered and name in context.contender:
            answered = question
            more: Mapping[str, Any] = {}
            if answer is not None:
                try:
                    async with asyncio.timeout(context.timing.invite * 0.8):
                        more = await answer()
                except TimeoutError:
                    log.info("%s: not ready to take over in time, so not answering the invitation", name)
                    continue
                except Exception:
                    # Of the one who leads on our behalf, not ours: no reason to stand by no more.
                    log.exception("%s: no answer to the invitation, what it asks failed", name)
                    continue
            context.contender.answer(name, {**more, "number": question})
            await context.contender.write()
        await context.watch.changed(news)


def _question(context: Context, name: str) -> str | None:
    """The number of the invitation that stands for us now, or None. Only the holder of the lock may invite, and only
    our current lease (docs/design.md#requests-name-a-term)."""
    entry, leader = context.watch.entries.get(INVITE + name), context.watch.entries.get(LEADER + name)
    if entry is None or leader is None or entry.lease is None or entry.lease != leader.lease:
        return None
    question, lease = mapping_in(entry.record or b""), context.lease.current
    if question is None or lease is None or question.get("to") != lease.id:
        return None
    number = question.get("number")
    return number if isinstance(number, str) else None
