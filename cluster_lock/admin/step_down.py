"""Ask the leader of a lock to hand over, from anywhere, and see what comes of it.

The request goes over the backend and needs no rights but the backend's own. It stands under the lease of the session
that asks, and is gone when that session is. It is for one term: if another leader finds it, it takes no notice
(docs/design.md#requests-name-a-term).
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster_lock import clock
from cluster_lock.aio import finish
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.values import LEADER, REPLY, REQUEST, Entry, Lease, Record

if TYPE_CHECKING:
    from cluster_lock.session import Session
    from cluster_lock.session.context import Context

log = logging.getLogger("cluster_lock.step_down")


@dataclass(frozen=True, slots=True)
class StepDownOutcome:
    """What came of it. `before`, `after`: the lock as it stood and stands (`after.lease`: None if nobody
    leads). `declined`: why the leader leads on. `seconds`: from the request to the next leader; `gap`: from the moment
    at which the old one took no new work any more, by its own clock, None unless it handed over."""

    name: str
    before: Entry
    after: Entry | None
    seconds: float
    declined: str | None = None
    gap: float | None = None
    timed_out: bool = False


async def ask_to_step_down(
    session: Session, name: str, *, to: str | None = None, by: str, timeout: float
) -> StepDownOutcome | None:
    """Ask the leader of `name` to hand over, to the instance `to` if one is given, and wait for the next leader.

    None if nobody leads. `by`: who asks, for the log of the leader. At most `timeout` seconds, and some for the request
    itself. Raises what the session raises, BackendUnavailable and BackendRefused.
    """
    context, key = session.context, LEADER + name
    if not context.driver.traits.transfers:
        raise BackendRefused(
            f"{context.driver.backend} cannot move a lock: stop its leader (SIGTERM), and another one takes it"
        )
    with context.watch.following(key, REPLY + name):
        lease = await context.lease.get()
        before = (await context.driver.read([key])).entries[key]
        if before.lease is None:
            return None
        ask = Ask(context.identity.fencing_floor + before.index, secrets.token_hex(4), by, to)
        try:
            sent = clock.now()
            await context.driver.announce(lease, REQUEST + name, ask.to_bytes())
            return await _outcome(context, lease, before, ask, sent, timeout)
        except LeaseExpired as error:
            raise BackendUnavailable(f"the lease of the request is gone: {error}") from error
        finally:
            await finish(_take_back(context, REQUEST + name))


async def _outcome(
    context: Context, lease: Lease, before: Entry, ask: Ask, sent: float, timeout: float
) -> StepDownOutcome:
    name, watch, until = before.name.removeprefix(LEADER), context.watch, clock.now() + timeout
    while True:
        news = watch.news
        if context.lease.current != lease:
            raise BackendUnavailable(f"{context.driver.backend}: the lease of the request was lost, and it with it")
        entry, reply = watch.entries.get(LEADER + name), Reply.of(watch.entries.get(REPLY + name))
        if reply is not None and reply.number == ask.number:
            return StepDownOutcome(name, before, entry, clock.now() - sent, declined=reply.declined)
        if entry is not None and _is_another_term(before, entry):
            return StepDownOutcome(name, before, entry, clock.now() - sent, gap=_gap(entry))
        if (left := until - clock.now()) <= 0:
            return StepDownOutcome(name, before, entry, timeout, timed_out=True)
        await watch.changed(news, at_most=left)


def _gap(entry: Entry) -> float | None:
    record = Record.from_bytes(entry.record or b"")
    return record.gap if record is not None and isinstance(record.gap, float) else None


def _is_another_term(before: Entry, entry: Entry) -> bool:
    if entry.lease is None or entry.index <= before.index:
        return False
    # The same lease may have got it again; a stranger who overwrites the value only moves the index.
    return entry.lease != before.lease or (
        entry.record != before.record and Record.from_bytes(entry.record or b"") is not None
    )


async def _take_back(context: Context, key: str) -> None:
    lease = context.lease.current
    if lease is None:
        return  # it ended with it
    try:
        await context.driver.withdraw(lease, key)
    except (BackendUnavailable, BackendRefused, LeaseExpired) as error:
        log.info("the request ends with its lease: %s", error)
