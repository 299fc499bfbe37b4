"""The simulated server itself, without sockets: bots and their queues, pushed updates, injected trouble, and the oracle
that watches. `simulator` serves it over HTTP."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster_lock import clock as boot_clock

from . import updates
from .answers import too_many_requests
from .bot_key import BotKey, BotRef, token_of
from .bot_state import BotState, ConflictMode, Front, Modes, ReseedTo
from .clocks import Clock, LoopClock
from .faults import Fault, Faults
from .methods import Methods
from .oracle import Oracle
from .query import Query
from .rogue import RoguePoller
from .traffic import Traffic

Json = dict[str, Any]
KEPT_CALLS = 10_000
STOPPING_RETRY_AFTER = 5  # Query.h:246-253: what an unanswered query gets when the server shuts down


@dataclass(frozen=True, slots=True)
class Call:
    """One request that a bot made, other than getUpdates: what it sent, and when (boot clock)."""

    at: float
    bot: BotKey
    client: str
    method: str
    arguments: dict[str, str]


class Engine:
    """What TelegramSimulator serves; `answer` takes one request at a time, from wherever it came."""

    def __init__(self, clock: Clock | None, conflict: ConflictMode, front: Front, seed: int | None) -> None:
        self.clock: Clock = clock or LoopClock()
        self.modes = Modes(conflict, front)
        self.oracle = Oracle()
        self.faults = Faults()
        self._random = random.Random(seed)
        self._bots: dict[BotKey, BotState] = {}
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._counts: dict[BotKey, Counter[str]] = {}
        self._wall_offset = 0.0
        self._methods = Methods(self.unix_time)
        self._rogues: dict[BotKey, RoguePoller] = {}
        self._traffic: dict[BotKey, Traffic] = {}
        self._url = ""

    @property
    def url(self) -> str:
        """The base for TelegramAPIServer.from_base and SimulatorControl; empty until it is served."""
        return self._url

    def served_at(self, url: str) -> None:
        """The server's wall clock starts, and clients reach it at `url`."""
        started = datetime.fromisoformat(boot_clock.utc_text()).timestamp()
        self._wall_offset = started - self.clock.now()
        self._url = url

    async def shut_down(self) -> None:
        """End what runs by itself, and answer what is still held."""
        for ref in [*self._rogues]:
            await self.rogue_off(ref)
        for ref in [*self._traffic]:
            await self.traffic_off(ref)
        for bot in self._bots.values():
            bot.abandon(too_many_requests(STOPPING_RETRY_AFTER))

    def unix_time(self) -> int:
        """The wall clock of the simulated server, which jumps with its clock."""
        return int(self.clock.now() + self._wall_offset)

    # Updates.

    def push(
        self,
        bot: BotRef | BotKey,
        *,
        chat_id: int = 1,
        text: str | None = None,
        kind: str = "message",
        user_id: int | None = None,
        ttl: float | None = None,
    ) -> int | None:
        """One new update; its id, or None when the server dropped it (kind not allowed, queue full).

        Without `text` it is numbered: "1", "2", ... within its chat. `user_id` is the sender, by default the chat's own
        user or, in a group, user 1000. `ttl`: seconds until it expires, by default what Telegram gives the kind.
        """
        state = self.bot(bot)
        sender = user_id if user_id is not None else (chat_id if chat_id > 0 else 1000)
        order = sender if kind == "inline_query" else chat_id
        number = self.oracle.next_seq(state.key, order)
        shown = str(number) if text is None else text
        draft = updates.Draft(state.key.bot_id, chat_id, sender, shown, number, self.unix_time())
        body = updates.body_of(kind, updates.compose(kind, draft))
        return state.push(kind, body, order, updates.time_to_live(kind) if ttl is None else ttl)

    def push_many(self, bot: BotRef | BotKey, count: int, *, chats: Sequence[int] = (1,)) -> list[int]:
        """`count` numbered messages, to each of `chats` in turn; the ids of those that were queued."""
        ids = [self.push(bot, chat_id=chats[index % len(chats)]) for index in range(count)]
        return [update_id for update_id in ids if update_id is not None]

    def push_raw(self, bot: BotRef | BotKey, payload: Json, *, ttl: float | None = None) -> int | None:
        """An update as given, without its id: {"poll": {...}}. ValueError unless it has exactly one known kind."""
        if len(payload) != 1 or not payload.keys() <= updates.KINDS:
            raise ValueError(f"an update has exactly one kind, not {sorted(payload)}")
        [(kind, value)] = payload.items()
        body = updates.body_of(kind, value)
        return self.bot(bot).push(
            kind, body, updates.chat_of(value), updates.time_to_live(kind) if ttl is None else ttl
        )

    async def traffic_on(
        self, bot: BotRef, *, rate: float, chats: Sequence[int] = (1, 2, 3), seconds: float | None = None
    ) -> None:
        """Push `rate` numbered messages a second, to `chats` in turn, for `seconds` or until it is switched off."""
        key = self.bot(bot).key
        await self.traffic_off(key)
        self._traffic[key] = Traffic(lambda count, first: self._push_burst(key, count, first, chats), rate, seconds)

    async def traffic_off(self, bot: BotRef | BotKey) -> int:
        """Stop it; how many messages it pushed."""
        traffic = self._traffic.pop(BotKey.of(bot), None)
        return 0 if traffic is None else await traffic.stop()

    def _push_burst(self, key: BotKey, count: int, first: int, chats: Sequence[int]) -> None:
        for index in range(first, first + count):
            self.push(key, chat_id=chats[index % len(chats)])

    # Trouble.

    def inject(self, fault: Fault) -> None:
        """Let `fault` hit the next requests that match it."""
        self.faults.add(fault)

    def revoke(self, bot: BotRef) -> None:
        """Answer 401: to this token, or to every token of the bot when it is named by its id."""
        state = self.bot(bot)
        token = token_of(bot)
        if token is None:
            state.revoked = True
        else:
            state.revoked_tokens.add(token)
        if state.parked is not None and state.refusal(state.parked) is not None:
            state.close()

    def restore(self, bot: BotRef) -> None:
        """Undo `revoke`, `restarting` and the bot's own logOut."""
        state = self.bot(bot)
        state.revoked = state.closing = state.logged_out = False
        state.revoked_tokens.clear()

    def restarting(self, bot: BotRef) -> None:
        """Answer 500 "Internal Server Error: restart" until `restore`; the parked poll is answered with nothing."""
        state = self.bot(bot)
        state.closing = True
        state.close()

    def set_webhook(self, bot: BotRef, url: str) -> None:
        """As if somebody else had called setWebhook (or, with an empty url, deleteWebhook)."""
        state = self.bot(bot)
        if url:
            state.terminate_for_webhook()
        state.webhook = url

    def reseed(self, bot: BotRef, to: ReseedTo = "random", *, now: bool = False) -> None:
        """Begin a new numbering with the next update, as Telegram does after an idle week.

        `to`: its id, or "random" (as Telegram), "lower" or "higher" than all so far. It waits until the queue is empty,
        as it would be; `now`: at once, and what is still queued is forgotten, as when TQueue runs out of ids.
        """
        self.bot(bot).reseed(to, now=now)

    def jump(self, seconds: float) -> None:
        """Move the server's clock forward."""
        self.clock.jump(seconds)

    def set_modes(self, *, conflict: ConflictMode | None = None, front: Front | None = None) -> None:
        self.modes.conflict = conflict or self.modes.conflict
        self.modes.front = front or self.modes.front

    async def rogue_on(self, bot: BotRef, *, poll_timeout: int = 10, pause: float = 1.0, acks: bool = False) -> None:
        """Start a poller that knows no lock, as client "rogue": it polls on, after a 409 too, `pause` seconds later.

        `acks`: it acknowledges what it gets, as any real second poller would.
        """
        key = self.bot(bot).key
        await self.rogue_off(key)
        self._rogues[key] = RoguePoller(self._url, key, poll_timeout, pause, acks=acks)

    async def rogue_off(self, bot: BotRef | BotKey) -> None:
        rogue = self._rogues.pop(BotKey.of(bot), None)
        if rogue is not None:
            await rogue.stop()

    # Looking.

    def bot(self, bot: BotRef | BotKey) -> BotState:
        """The state of a bot, made when it is first named."""
        key = BotKey.of(bot)
        state = self._bots.get(key)
        if state is None:
            state = self._bots[key] = BotState(key, self.clock, self.oracle, self.modes, self._random)
            self._counts[key] = Counter()
        return state

    def calls(self, method: str | None = None) -> list[Call]:
        """The bots' latest requests other than getUpdates (their methods in lower case); `method` picks one kind."""
        return [call for call in self._calls if method is None or call.method == method.lower()]

    def state(self) -> Json:
        """Everything that is going on, for people and for tests of other processes. No token is in it."""
        return {
            "modes": {"conflict": self.modes.conflict, "front": self.modes.front},
            "faults_waiting": len(self.faults.waiting),
            "bots": {str(key): self._bot_state(key, state) for key, state in self._bots.items()},
        }

    def answer(self, query: Query) -> None:
        """Let the server answer `query`, now or later. What the HTTP side calls, and tests of the rules."""
        state = self.bot(query.bot)
        self._counts[query.bot][query.method] += 1
        if query.method != "getupdates":
            call = Call(boot_clock.now(), query.bot, query.client, query.method, dict(query.arguments))
            self._calls.append(call)
        self._methods.answer(state, query)

    def _bot_state(self, key: BotKey, state: BotState) -> Json:
        parked = state.parked
        return {
            "pending": len(state.queue),
            "head": state.queue.head,
            "tail": state.queue.tail,
            "parked": None if parked is None else parked.client,
            "parked_is_connected": parked is not None and parked.poll is not None and parked.poll.end == "open",
            "webhook": state.webhook,
            "allowed_updates": sorted(state.allowed),
            "revoked": state.revoked or bool(state.revoked_tokens),
            "closing": state.closing,
            "logged_out": state.logged_out,
            "requests": dict(self._counts[key]),
            "rogue": key in self._rogues,
            "traffic": key in self._traffic and not self._traffic[key].done,
        }
