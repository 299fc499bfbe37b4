"""One bot as the server knows it: its queue, the one parked poll, conflicts, and what is set for it.

After tdlib/telegram-bot-api, Client.cpp. The numbers in comments are its lines at 01a3679c (Bot API 10.0).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from . import updates
from .answers import Answer, conflict, error, ok_updates
from .bot_key import BotKey
from .clocks import Clock, Timer
from .oracle import Oracle
from .query import Query
from .update_queue import MAX_ID, UpdateQueue

LONG_POLL_MAX_TIMEOUT = 50  # seconds; Client.h:1610-1612, as the next two
LONG_POLL_WAIT_AFTER = 0.001
LONG_POLL_MAX_DELAY = 0.002
CONFLICT_PAUSE = 3.0
WEBHOOK_IS_ACTIVE = (
    "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)
OTHER_POLLER = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
WEBHOOK_SET = "Conflict: terminated by setWebhook request"

ConflictMode = Literal["newest_wins", "sticky"]
Front = Literal["cloud", "local"]
ReseedTo = int | Literal["random", "lower", "higher"]


@dataclass(slots=True)
class Modes:
    """How the whole server behaves.

    `conflict`: "newest_wins" is what the source does. "sticky" is what people believe (and what a client must survive):
    while a poll is parked the *newcomer* is refused, even if the parked connection is long dead.
    `front`: what stands before the server. api.telegram.org ("cloud") answers 404 to a malformed token, a server
    of one's own ("local") 401.
    """

    conflict: ConflictMode = "newest_wins"
    front: Front = "cloud"


@dataclass(eq=False, slots=True)
class _Parked:
    query: Query
    offset: int
    limit: int
    deadline: float
    woken: bool = False


class BotState:
    def __init__(self, key: BotKey, clock: Clock, oracle: Oracle, modes: Modes, source: random.Random) -> None:
        self.key = key
        self.clock = clock
        self.queue = UpdateQueue(source)
        self.allowed = updates.DEFAULT_ALLOWED
        self.webhook = ""
        self.next_webhook_change = 0.0
        self.opened_at: float | None = None
        """When the server began to serve this bot; None before its first request and after `close`."""
        self.revoked_tokens: set[str] = set()
        self.revoked = False
        self.closing = False
        self.logged_out = False
        self._oracle = oracle
        self._modes = modes
        self._random = source
        self._parked: _Parked | None = None
        self._parked_timer: Timer | None = None
        self._held: dict[Query, Timer] = {}
        self._reseed_to: ReseedTo | None = None
        self._previous_offset = -1
        self._previous_start = -100.0
        self._next_conflict = -100.0

    @property
    def parked(self) -> Query | None:
        return None if self._parked is None else self._parked.query

    def refusal(self, query: Query) -> Answer | None:
        """Why the server serves this bot nothing at all (16278-16296)."""
        if self.revoked or query.token in self.revoked_tokens:
            return error(401, "Unauthorized")
        if self.closing:
            return error(500, "Internal Server Error: restart")
        if self.logged_out:
            return error(400, "Logged out")
        return None

    def open(self) -> None:
        """The first request after the start or after `close` makes the server's client for this bot anew."""
        if self.opened_at is None:
            self.opened_at = self.clock.now()
            self._previous_offset, self._previous_start, self._next_conflict = -1, -100.0, -100.0

    def close(self) -> None:
        """The server closes its client of this bot: the parked poll is answered with nothing (9269-9272)."""
        self.opened_at = None
        self._wake()

    def abandon(self, answer: Answer) -> None:
        """Answer every request that is still held, parked or not: the server stops."""
        self._wake()
        for query, timer in list(self._held.items()):
            timer.cancel()
            query.reply(answer)
        self._held.clear()

    # Updates come in.

    def push(self, kind: str, body: str, chat: int, ttl: float) -> int | None:
        """Queue an update. None when the server drops it: its kind is not allowed, or the queue is full."""
        if kind not in self.allowed or self.queue.refuses(body):
            return None
        if self._reseed_to is not None and not self.queue:
            self._renumber()
        elif self.queue.is_out_of_ids():
            self._oracle.forgotten(self.key, self.queue.renumber(), "renumbered")
        update_id = self.queue.push(body, self.clock.now() + ttl)
        self._oracle.pushed(self.key, update_id, chat, ordered=kind not in updates.QUERIES)
        if not self.webhook:
            self._wake_soon()
        return update_id

    def reseed(self, to: ReseedTo, *, now: bool) -> None:
        """Let the next update begin a new numbering, as after an idle week; see TelegramSimulator.reseed."""
        self._reseed_to = to
        if now:
            self._renumber()

    def allow(self, text: str) -> None:
        """Set the kinds that are queued from now on: for the bot, until somebody sets others (16931-16946)."""
        allowed = updates.parse_allowed(text)
        if allowed is not None:
            self.allowed = allowed

    # getUpdates.

    def get_updates(self, query: Query) -> None:
        """Answer `query` now or park it (15700-15724)."""
        if self.webhook:
            self._conflict(WEBHOOK_IS_ACTIVE, query)
            return
        if self._modes.conflict == "sticky" and self._parked is not None:
            query.reply(conflict(OTHER_POLLER))
            return
        offset = query.integer("offset", 0)
        limit = query.integer("limit", 100, 1, 100)
        timeout = query.integer("timeout", 0, 0, LONG_POLL_MAX_TIMEOUT)
        self.allow(query.argument("allowed_updates"))
        now = self.clock.now()
        if offset == self._previous_offset:
            if timeout < 3 and now < self._previous_start + 3.0:
                timeout = 3
            if now < self._previous_start + 0.5:
                limit = 1
        self._previous_offset, self._previous_start = offset, now
        self._serve(query, offset, limit, timeout)

    def clear(self, query: Query, keep: int = 0) -> None:
        """Drop all but the newest `keep` updates because `query` says so."""
        self._acknowledge(query, self.queue.clear(keep))

    def terminate_for_webhook(self) -> None:
        if self._parked is not None:
            self._conflict(WEBHOOK_SET, self._unpark().query)

    def _serve(self, query: Query, offset: int, limit: int, timeout: int) -> None:
        """do_get_updates, 16321-16404. Acknowledging happens here, whether or not the answer ever arrives."""
        queue, now = self.queue, self.clock.now()
        if offset < 0:
            self.clear(query, keep=-offset)
        if offset <= 0:
            offset = queue.head
        if offset > 0 and queue.knows(offset):
            self._acknowledge(query, queue.forget_below(offset))
        entries, expired = queue.take(limit, now)
        self._oracle.forgotten(self.key, expired, "expired")
        if timeout and not entries:
            # Only here does the newcomer end the poll that was parked: with updates at hand, or without a timeout, the
            # parked one is left alone (16386-16403).
            if self._parked is not None:
                self._conflict(OTHER_POLLER, self._unpark().query)
            self._park(_Parked(query, offset, limit, now + timeout))
            return
        query.reply(ok_updates([entry.text for entry in entries], [entry.update_id for entry in entries]))

    def _acknowledge(self, query: Query, update_ids: list[int]) -> None:
        if update_ids:
            self._oracle.acknowledged(self.key, update_ids, query.client, query.term)

    def _conflict(self, text: str, query: Query) -> None:
        """409, at once or 3 s late (fail_query_conflict, 16225-16251): a loser that is held back receives no update."""
        if query.poll is not None:
            self._oracle.poll_evicted(query.poll)
        now = self.clock.now()
        if now >= self._next_conflict:
            self._next_conflict = now + CONFLICT_PAUSE
            query.reply(conflict(text))
        else:
            self._held[query] = self.clock.call_at(now + CONFLICT_PAUSE, lambda: self._end_hold(query, text))

    def _end_hold(self, query: Query, text: str) -> None:
        del self._held[query]
        query.reply(conflict(text))

    # The parked poll.

    def _park(self, parked: _Parked) -> None:
        self._parked = parked
        self._set_alarm(parked.deadline)

    def _unpark(self) -> _Parked:
        assert self._parked is not None
        parked, self._parked = self._parked, None
        if self._parked_timer is not None:
            self._parked_timer.cancel()
        return parked

    def _set_alarm(self, when: float) -> None:
        if self._parked_timer is not None:
            self._parked_timer.cancel()
        self._parked_timer = self.clock.call_at(when, self._wake)

    def _wake_soon(self) -> None:
        """A little later, so that updates that come together leave together (long_poll_wakeup, 16406-16431)."""
        parked = self._parked
        if parked is None:
            return
        now = self.clock.now()
        if not parked.woken:
            parked.woken = True
            parked.deadline = min(parked.deadline, now + LONG_POLL_MAX_DELAY)
        self._set_alarm(min(parked.deadline, now + LONG_POLL_WAIT_AFTER))

    def _wake(self) -> None:
        """Answer the parked poll with what there is."""
        if self._parked is not None:
            parked = self._unpark()
            self._serve(parked.query, parked.offset, parked.limit, 0)

    def _renumber(self) -> None:
        to, self._reseed_to = self._reseed_to, None
        tail = self.queue.tail
        if isinstance(to, int):
            first_id = to
        elif to == "random" or tail == 0:
            first_id = 0
        elif to == "lower":
            first_id = self._random.randint(tail // 4, tail // 2)
        else:
            first_id = self._random.randint((tail + MAX_ID) // 2, MAX_ID - 1_000_000)
        self._oracle.forgotten(self.key, self.queue.renumber(first_id), "renumbered")
