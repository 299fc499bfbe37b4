"""What is wrong with a history: pure functions, each for one thing that must never be.

A finding is a violation, unless a fault of the round excuses it; then it is counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, starmap
from math import inf

from cluster_lock.lease.guard import EXIT_GUARD
from cluster_lock.testing.telegram import Update, judge

from .availability import too_long
from .history import History
from .unclean import repetitions, unconfirmed

EARLIEST = 4.9
"""Seconds that a handler has run when its update may be confirmed all the same: 5 by the guarantees, and it began a
moment before it could say so."""

AT_MOST_EARLIER = 0.2
"""Seconds by which a drain may seem shorter: a request is sent a moment after it is written down."""

CHECKS: dict[str, Callable[[History], Iterator[Finding]]] = {}
"""Every check, by its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`at`: when it happened, for who looks at the lines around it."""

    check: str
    at: float
    words: str


@dataclass(slots=True)
class Verdict:
    violations: list[Finding] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    """Findings that a fault of the round excuses, and what the guarantees allow: how many of each."""


def check(history: History) -> Verdict:
    """All that is wrong with it."""
    verdict = Verdict()
    excuses = {name for fault in history.faults for name in fault.excuses}
    for name, look in CHECKS.items():
        found = list(look(history))
        if name in excuses:
            verdict.excused[name] += len(found)
        else:
            verdict.violations += found
    verdict.excused += Counter(allowed(history))
    return verdict


def _check(look: Callable[[History], Iterator[tuple[float, str]]]) -> Callable[[History], Iterator[Finding]]:
    def named(history: History) -> Iterator[Finding]:
        for at, words in look(history):
            yield Finding(look.__name__, at, words)

    CHECKS[look.__name__] = named
    return named


@_check
def overlapping_polls(history: History) -> Iterator[tuple[float, str]]:
    """Two processes had a live getUpdates at one moment."""
    spans = sorted((start, end, poll.client) for poll in history.polls for start, end in history.live(poll))
    latest: dict[str, float] = {}
    for start, end, client in spans:
        for other, until in latest.items():
            if other != client and until > start:
                yield start, f"{client} polled while {other} did, for {(min(end, until) - start) * 1000:.1f} ms"
        latest[client] = max(end, latest.get(client, 0.0))


@_check
def overlapping_work(history: History) -> Iterator[tuple[float, str]]:
    """Something of an earlier term still ran when a later one began to work."""
    for index, earlier in enumerate(history.works):
        for later in history.works[index + 1 :]:
            if later.began < earlier.ended and (later.client, later.term) != (earlier.client, earlier.term):
                ran = f"{earlier.last} of {earlier.client} ran under {earlier.term}"
                for_so_long = f"{(earlier.ended - later.began) * 1000:.1f} ms"
                yield later.began, f"{later.client} began under token {later.term} while {ran}, for {for_so_long}"


@_check
def sent_after_deadline(history: History) -> Iterator[tuple[float, str]]:
    """A getUpdates was written when its own lease was not to be trusted any more, or under no lease."""
    for poll in history.polls:
        request = history.request_of(poll)
        if request is None or request.deadline is None:
            yield poll.arrived, f"{poll.client} sent a getUpdates under no term"
        elif request.sent > request.deadline:
            yield request.sent, f"{poll.client} sent a getUpdates {request.sent - request.deadline:.3f} s too late"


@_check
def arrived_after_lease(history: History) -> Iterator[tuple[float, str]]:
    """A getUpdates, and what it confirmed, reached Telegram when the lock may have been somebody else's."""
    for poll in history.polls:
        request = history.request_of(poll)
        if request and request.deadline and poll.arrived > request.deadline + history.timing["margin"]:
            yield (
                poll.arrived,
                f"a getUpdates of {poll.client} arrived {poll.arrived - request.sent:.3f} s after it left",
            )


@_check
def arrived_in_later_term(history: History) -> Iterator[tuple[float, str]]:
    """A getUpdates reached Telegram after one of a later term had."""
    latest = -1
    for poll in sorted(history.polls, key=lambda poll: poll.arrived):
        if poll.term is not None:
            if poll.term < latest:
                yield poll.arrived, f"{poll.client} polled under token {poll.term} after a poll under {latest}"
            latest = max(latest, poll.term)


@_check
def handler_after_deadline(history: History) -> Iterator[tuple[float, str]]:
    """A handler began after the deadline, or when its lease was known to be lost; or it ran on beyond the last one."""
    for process in history.processes:
        until = 0.0
        for event in process.events:
            deadline = event.get("deadline")
            if event["kind"] == "run" and event["outcome"] != "cancelled":
                began = event["outcome"] is None
                limit: float = event["deadline"] if began else max(until, event["deadline"])
                if event["at"] > limit:
                    words = f"{'began' if began else 'ended'} {event['at'] - limit:.3f} s too late on {process.client}"
                    yield event["at"], f"the handler of {event['update']} {words}"
            until = max(until, deadline or 0.0)


@_check
def lost_updates(history: History) -> Iterator[tuple[float, str]]:
    """An update that no handler finished and none will."""
    for update in judge.lost(history.updates, drained=True):
        if not confirmed_early(update):
            acked = f"confirmed by {update.acked.client}" if update.acked else "never confirmed"
            yield update.acked.at if update.acked else update.pushed, f"update {update.update_id} is lost: {acked}"


@_check
def never_confirmed(history: History) -> Iterator[tuple[float, str]]:
    """An update that was handled and stays in Telegram's queue: it will come again and again."""
    for update in history.updates:
        if update.pending and update.finished_runs:
            yield history.ended, f"update {update.update_id} was handled and never confirmed"


@_check
def doubled_updates(history: History) -> Iterator[tuple[float, str]]:
    """An update was finished twice although the term of the first had ended in good order."""
    may_come_again = unconfirmed(history)
    for update in judge.duplicated(history.updates):
        for run, later in repetitions(update):
            if not may_come_again(run, later):
                yield run.start, f"update {update.update_id} was handled again, its first term {run.term} ended well"


@_check
def cut_off_too_soon(history: History) -> Iterator[tuple[float, str]]:
    """A term ended in good order, and one of its handlers was cut off before it had the time of a drain."""
    good = {
        (process.client, event["term"])
        for process in history.processes
        for event in process.of("ended")
        if event["lost"] is None
    }
    for run in history.runs:
        if run.outcome == "cancelled" and run.end is not None and (run.client, run.term) in good:
            fetched = [poll.sent for poll in history.polls if (poll.client, poll.term) == (run.client, run.term)]
            # What it fetched last it did before the drain. What is cut off before that has its own time limit.
            had = run.end - max((sent for sent in fetched if sent is not None), default=run.start)
            if 0 <= had < history.timing["drain"] - AT_MOST_EARLIER:
                yield run.end, f"a handler of {run.client} was cut off {had:.2f} s after the last getUpdates"


@_check
def out_of_order(history: History) -> Iterator[tuple[float, str]]:
    """An update started before an earlier one of its chat."""
    for update in judge.out_of_order(history.updates):
        yield update.first_start or update.pushed, f"update {update.update_id} of chat {update.chat} was overtaken"


@_check
def tokens_grow(history: History) -> Iterator[tuple[float, str]]:
    """A later grant had no larger token, or two processes led with the same one."""
    led: dict[int, str] = {}
    for at, term, client in sorted(_first_said(history)):
        if term not in led and led and term < max(led):
            yield at, f"{client} got token {term} after {max(led)} was given"
        if led.setdefault(term, client) != client:
            yield at, f"{client} and {led[term]} both led with token {term}"


def _first_said(history: History) -> Iterator[tuple[float, int, str]]:
    """When each process said first that it leads with a token, the token, and who. One that led when the round began
    has said so before."""
    for process in history.processes:
        begun = {event["term"] for event in process.of("began")}
        seen = set()
        for event in process.of("role"):
            if (term := event["term"]) and term not in seen:
                seen.add(term)
                is_old = term not in begun and process.started < history.began
                yield history.began if is_old else event["at"], term, process.client


@_check
def index_goes_on(history: History) -> Iterator[tuple[float, str]]:
    """The lock stood in the store under a smaller index than before."""
    for before, after in zip(history.stands, history.stands[1:], strict=False):
        if after["index"] < before["index"]:
            yield after["at"], f"the store's index went back from {before['index']} to {after['index']}"


@_check
def no_leader(history: History) -> Iterator[tuple[float, str]]:
    """Nobody polled for longer than a take-over takes, while somebody could."""
    for start, end in too_long(history):
        yield start, f"nobody polled for {end - start:.1f} s although somebody could"


@_check
def lost_for_nothing(history: History) -> Iterator[tuple[float, str]]:
    """A term was lost, or the guard ended its process, although all that was done takes the lease from nobody."""
    if not history.faults or not all(fault.harmless for fault in history.faults):
        return
    for process in history.processes:
        for event in process.of("ended"):
            if event["lost"] is not None:
                yield event["at"], f"{process.client} lost its term {event['term']}: {event['lost']}"
        if process.code == EXIT_GUARD:
            yield process.ended or inf, f"the guard ended {process.client}"


@_check
def keeper_ended(history: History) -> Iterator[tuple[float, str]]:
    """The guard ended a keeper, with all below it, although everything was done to workers, which it ends itself."""
    if history.faults and all(fault.to_worker for fault in history.faults):
        for keeper in history.keepers:
            if keeper["code"] == EXIT_GUARD:
                yield keeper["at"], f"the guard ended the keeper of {keeper['name']}"


@_check
def handed_to_the_dead(history: History) -> Iterator[tuple[float, str]]:
    """A leader gave the lock to a process that was dead already when that leader still fetched updates: so it cannot
    have answered an invitation."""
    for before, after in pairwise(history.stands):
        dead = history.death(after.get("holder", ""))
        fetched = [poll.sent for poll in history.polls if poll.term == before["index"] and poll.sent is not None]
        late = max(fetched, default=0.0) - history.timing["invite"] - dead
        if after.get("given") and late > 0:
            yield after["at"], f"{after['holder']} was given the lock, and was dead for {late:.1f} s and longer"


@_check
def leaked(history: History) -> Iterator[tuple[float, str]]:
    """Something of a process that has stopped still stands in the store."""
    for words in history.leaked:
        yield history.ended, words


@_check
def did_not_recover(history: History) -> Iterator[tuple[float, str]]:
    """A process was not well again after the last fault was over."""
    if history.recovered is None:
        yield history.ended, f"not well {history.ended - history.healed:.1f} s after the heal: {history.unwell}"


@_check
def ended_badly(history: History) -> Iterator[tuple[float, str]]:
    """A process ended with a code that no fault explains: an error, not a signal, the guard or a request."""
    for process in history.processes:
        if process.code not in (None, 0, -9, EXIT_GUARD):
            yield process.ended or inf, f"{process.client} ended with code {process.code}"


def confirmed_early(update: Update) -> bool:
    """Was it given up on purpose: confirmed by the very process whose handler of it had run for long, and still ran?"""
    acked = update.acked
    return acked is not None and any(
        run.client == acked.client and run.start + EARLIEST <= acked.at < (run.end or inf) for run in update.runs
    )


def allowed(history: History) -> dict[str, int]:
    """What the guarantees allow, counted."""
    may_come_again = unconfirmed(history)
    twice = [
        update for update in judge.duplicated(history.updates) if all(starmap(may_come_again, repetitions(update)))
    ]
    early = [update for update in judge.lost(history.updates, drained=True) if confirmed_early(update)]
    renumbered = [update for update in history.updates if update.gone == "renumbered"]
    counts = {"doubled after an unclean end": twice, "lost, confirmed early": early, "renumbered": renumbered}
    return {name: len(found) for name, found in counts.items() if found}
