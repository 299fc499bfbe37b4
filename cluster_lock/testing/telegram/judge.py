"""What is wrong with a history: pure functions, so that hand-made bad histories can be judged too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from .bot_key import BotKey
from .history import Poll, Update
from .liveness import Life

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SeenPoll:
    """A poll and the spans of time in which it was live."""

    poll: Poll
    spans: tuple[Span, ...]
    late: bool

    @property
    def last_live(self) -> float:
        return self.spans[-1][1]


@dataclass(frozen=True, slots=True)
class Change:
    """From one client's last live poll to another client's first."""

    bot: str
    old: str
    new: str
    ended: float
    started: float

    @property
    def gap_ms(self) -> float:
        """Milliseconds in which nobody polled; negative when they overlapped."""
        return (self.started - self.ended) * 1000


def seen(polls: Iterable[Poll], lives: Mapping[str, Life]) -> list[SeenPoll]:
    """The polls with what the harness said about their clients, in order of arrival."""
    nobody = Life()
    result = []
    for poll in sorted(polls, key=lambda poll: poll.arrived):
        life = lives.get(poll.client, nobody)
        result.append(SeenPoll(poll, tuple(life.live_spans(poll)), life.is_late(poll)))
    return result


def overlaps(polls: Iterable[SeenPoll]) -> list[tuple[Poll, Poll]]:
    """Every pair of polls of different clients for one bot that were live at the same time."""
    spans = sorted(((start, end, item.poll) for item in polls for start, end in item.spans), key=lambda span: span[:2])
    open_spans: dict[BotKey, list[tuple[float, Poll]]] = defaultdict(list)
    pairs: dict[tuple[int, int], tuple[Poll, Poll]] = {}
    for start, end, poll in spans:
        others = [(until, other) for until, other in open_spans[poll.bot] if until > start]
        for _, other in others:
            if other.client != poll.client:
                pairs.setdefault((id(other), id(poll)), (other, poll))
        open_spans[poll.bot] = [*others, (end, poll)]
    return list(pairs.values())


def live_conflicts(polls: Iterable[SeenPoll]) -> list[Poll]:
    """Polls answered 409 while somebody was there to read it. (Polls of a dead or frozen client have no span then.)"""
    return [
        item.poll
        for item in polls
        if item.poll.conflict is not None
        and item.poll.ended is not None
        and any(start <= item.poll.ended <= end for start, end in item.spans)
    ]


def changes(polls: Iterable[SeenPoll], until: float) -> list[Change]:
    """Each time that the polls of a bot pass from one client to another. What is still open ends at `until`."""
    result = []
    latest: dict[BotKey, tuple[str, float]] = {}
    for item in polls:
        if not item.spans:
            continue
        poll = item.poll
        client, ended = latest.get(poll.bot, (poll.client, -inf))
        if client != poll.client:
            result.append(Change(str(poll.bot), client, poll.client, ended, poll.arrived))
            ended = -inf
        latest[poll.bot] = (poll.client, max(ended, min(item.last_live, until)))
    return result


def lost(updates: Iterable[Update], *, drained: bool) -> list[Update]:
    """Updates that nobody will handle to the end any more.

    Acknowledged (or expired) without a finished run; once the traffic has drained, also what is left over. Before that
    a run that has begun may still report its end. What the server renumbered away is its own doing, counted apart.
    """
    result = []
    for update in updates:
        if update.finished_runs or update.gone == "renumbered":
            continue
        if drained or (not update.pending and not any(run.end is None for run in update.runs)):
            result.append(update)
    return result


def duplicated(updates: Iterable[Update]) -> list[Update]:
    """Updates that were handled to the end more than once."""
    return [update for update in updates if len(update.finished_runs) > 1]


def out_of_order(updates: Iterable[Update]) -> list[Update]:
    """Updates whose first start came before that of an earlier update of the same chat. Queries have no order."""
    chats: dict[tuple[BotKey, int], list[Update]] = defaultdict(list)
    for update in updates:
        if update.ordered:
            chats[update.bot, update.chat].append(update)
    result = []
    for members in chats.values():
        latest = -inf
        for update in sorted(members, key=lambda update: update.seq):
            start = update.first_start
            if start is None:
                continue
            if start < latest:
                result.append(update)
            latest = max(latest, start)
    return result
