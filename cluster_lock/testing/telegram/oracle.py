"""The oracle: it sees every request and every report, and says afterwards what must not have happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster_lock import clock as boot_clock

from . import judge
from .bot_key import BotKey, BotRef
from .history import Delivery, End, Poll, Run, Update
from .liveness import Life

Json = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """The verdict in numbers; `findings` has the cases behind each number that is not 0, under the same names."""

    updates_sent: int
    updates_handled: int
    lost: int
    duplicated: int
    out_of_order: int
    overlapping_polls: int
    conflicts_live: int
    late_arrivals: int
    sent_after_term: int
    pending: int
    renumbered: int
    findings: dict[str, list[Json]] = field(default_factory=dict, repr=False)

    def as_json(self) -> Json:
        return asdict(self)


class Oracle:
    """Records (called by the simulator), is told (by the harness and by the bots), and judges.

    All times are `cluster_lock.clock` seconds, so that what other processes of this host report can be compared.
    `at` is that moment, or None for now.
    """

    def __init__(self, now: Callable[[], float] = boot_clock.now) -> None:
        self._now = now
        self._lives: dict[str, Life] = defaultdict(Life)
        self._updates: list[Update] = []
        self.clear()

    def clear(self) -> None:
        """Forget the history; keep what is known about the clients' lives. (For measurements that go on for long.)"""
        self._cleared = {update.update_id for update in self._updates}
        self._polls: list[Poll] = []
        self._updates = []
        self._by_id: dict[BotKey, dict[int, Update]] = defaultdict(dict)
        self._chat_lengths: dict[tuple[BotKey, int], int] = defaultdict(int)

    # What the simulator sees.

    def poll_arrived(self, poll: Poll) -> None:
        self._polls.append(poll)

    def poll_ended(self, poll: Poll, end: End, status: int | None = None, conflict: str | None = None) -> None:
        """The first end counts: an answer that finds the connection closed changes nothing any more."""
        if poll.ended is None:
            poll.ended, poll.end, poll.status, poll.conflict = self._now(), end, status, conflict

    def poll_evicted(self, poll: Poll) -> None:
        poll.evicted = self._now()

    def next_seq(self, bot: BotKey, chat: int) -> int:
        return self._chat_lengths[bot, chat] + 1

    def pushed(self, bot: BotKey, update_id: int, chat: int, *, ordered: bool = True) -> None:
        self._chat_lengths[bot, chat] += 1
        update = Update(bot, update_id, chat, self._chat_lengths[bot, chat], self._now(), ordered)
        self._updates.append(update)
        self._by_id[bot][update_id] = update

    def delivered(self, poll: Poll, update_ids: Sequence[int]) -> None:
        poll.received = len(update_ids)
        delivery = Delivery(poll.client, poll.term, self._now())
        updates = self._by_id[poll.bot]
        for update_id in update_ids:
            if update_id in updates:
                updates[update_id].delivered.append(delivery)

    def acknowledged(self, bot: BotKey, update_ids: Sequence[int], client: str, term: int | None) -> None:
        delivery = Delivery(client, term, self._now())
        updates = self._by_id[bot]
        for update_id in update_ids:
            if update_id in updates:
                updates[update_id].acked = delivery

    def forgotten(self, bot: BotKey, update_ids: Iterable[int], why: str) -> None:
        updates = self._by_id[bot]
        for update_id in update_ids:
            if update_id in updates:
                updates[update_id].gone = why

    # What it is told.

    def frozen(self, client: str, since: float | None = None) -> None:
        """The client's process is stopped, or its network is cut, since then: its open polls are not live."""
        self._lives[client].frozen(self._at(since))

    def thawed(self, client: str, at: float | None = None) -> None:
        """It goes on. What it sends from now on counts; an open poll that nobody evicted is live again."""
        self._lives[client].thawed(self._at(at))

    def dead(self, client: str, at: float | None = None) -> None:
        """The client's process has ended. Bytes of it that arrive later are `late_arrivals`."""
        self._lives[client].died(self._at(at))

    def started(self, client: str, at: float | None = None) -> None:
        """A new process runs under the name of a dead one. (Clients that say when they wrote need not be announced.)"""
        self._lives[client].started(self._at(at))

    def term_ended(self, client: str, term: int, at: float | None = None) -> None:
        """The client's term is over: what it wrote before and arrives later is late, what it writes later is wrong."""
        self._lives[client].term_ended(term, self._at(at))

    def handled(
        self,
        update_id: int,
        *,
        client: str,
        start: float,
        end: float | None = None,
        outcome: str | None = None,
        term: int | None = None,
        bot: BotRef | BotKey | None = None,
    ) -> None:
        """A run of the bot's handler: reported once at its start, and again (same client and start) with its end.

        `outcome`: "cancelled" means that it did not come to its end; "ok", "failed" or any other word that it did.
        Report the end inside the handler: an update that is acknowledged before its end is known would count as lost.
        KeyError for an update that nobody pushed. What was pushed before `clear` may be handled once more after it, and
        is nothing to anybody any more.
        """
        update = self._find(update_id, bot)
        if update is None:
            return
        for run in update.runs:
            if run.client == client and run.start == start:
                run.end, run.outcome = end, outcome
                return
        update.runs.append(Run(client, term, start, end, outcome))

    def handled_many(self, runs: Iterable[Json]) -> None:
        """Several runs, each an object with the arguments of `handled`."""
        for run in runs:
            self.handled(**run)

    # What it says.

    def report(
        self, *, bot: BotRef | None = None, drained: bool = True, ignore: Collection[str] = (), at_most: int = 1000
    ) -> Report:
        """The verdict on everything so far (of one bot).

        `drained`: the harness has waited for the traffic to be handled, so what is left over is lost. False while it
        runs. `ignore`: clients whose polls do not count, such as a rogue that the harness itself let loose.
        `at_most`: how many cases of each kind are listed.
        """
        polls = self._seen(bot, ignore)
        updates = self.updates(bot)
        lost = judge.lost(updates, drained=drained)
        duplicated = judge.duplicated(updates)
        disorder = judge.out_of_order(updates)
        pairs = judge.overlaps(polls)
        conflicts = judge.live_conflicts(polls)
        late = [item.poll for item in polls if item.late]
        after_term = [item.poll for item in polls if self._life(item.poll.client).is_after_its_term(item.poll)]
        renumbered = [update for update in updates if update.gone == "renumbered"]
        return Report(
            updates_sent=len(updates),
            updates_handled=sum(1 for update in updates if update.finished_runs),
            lost=len(lost),
            duplicated=len(duplicated),
            out_of_order=len(disorder),
            overlapping_polls=len(pairs),
            conflicts_live=len(conflicts),
            late_arrivals=len(late),
            sent_after_term=len(after_term),
            pending=sum(1 for update in updates if update.pending),
            renumbered=len(renumbered),
            findings={
                "lost": [as_json(update) for update in lost[:at_most]],
                "duplicated": [as_json(update) for update in duplicated[:at_most]],
                "out_of_order": [as_json(update) for update in disorder[:at_most]],
                "overlapping_polls": [{"first": as_json(a), "second": as_json(b)} for a, b in pairs[:at_most]],
                "conflicts_live": [as_json(poll) for poll in conflicts[:at_most]],
                "late_arrivals": [as_json(poll) for poll in late[:at_most]],
                "sent_after_term": [as_json(poll) for poll in after_term[:at_most]],
            },
        )

    def polls(self, bot: BotRef | None = None, *, since: float = 0.0) -> list[judge.SeenPoll]:
        """Every getUpdates that arrived after `since`, in order of arrival, with the spans in which it was live."""
        return self._seen(bot, (), since)

    def changes(self, bot: BotRef | None = None, *, ignore: Collection[str] = ()) -> list[judge.Change]:
        """Each time that polling passed from one client to another, with the gap between them."""
        return judge.changes(self._seen(bot, ignore), self._now())

    def updates(self, bot: BotRef | None = None) -> list[Update]:
        """What became of each update, in the order in which they were pushed."""
        if bot is None:
            return self._updates
        key = BotKey.of(bot)
        return [update for update in self._updates if update.bot == key]

    def _seen(self, bot: BotRef | None, ignore: Collection[str], since: float = 0.0) -> list[judge.SeenPoll]:
        key = None if bot is None else BotKey.of(bot)
        polls = (poll for poll in self._polls if poll.arrived > since)
        return judge.seen(
            (poll for poll in polls if key in (None, poll.bot) and poll.client not in ignore), self._lives
        )

    def _life(self, client: str) -> Life:
        return self._lives.get(client) or Life()

    def _find(self, update_id: int, bot: BotRef | BotKey | None) -> Update | None:
        known = self._by_id.values() if bot is None else [self._by_id[BotKey.of(bot)]]
        found = [updates[update_id] for updates in known if update_id in updates]
        if not found and update_id in self._cleared:
            return None
        if len(found) != 1:
            raise KeyError(f"{len(found)} bots have an update {update_id}")
        return found[0]

    def _at(self, at: float | None) -> float:
        return self._now() if at is None else at


def as_json(record: Poll | Update) -> Json:
    """A record as a plain object."""
    return asdict(record) | {"bot": str(record.bot)}
