"""Time without a leader."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from .history import History, Span, without

START = 8.0
"""Seconds that a busy machine may add to a take-over: what this finds is a lock that nobody gets, not a slow one."""


def gaps(history: History) -> list[Span]:
    """When nobody had a live getUpdates, from the begin to the heal and what follows. What was open before the round is
    not known: for a moment nobody seems to poll."""
    spans = [span for poll in history.polls for span in history.live(poll)]
    if not spans:
        return [(history.began, history.ended)]
    last = history.recovered if history.recovered is not None else history.ended
    return _between(spans, history.began, last)


def _between(spans: Iterable[Span], begin: float, end: float) -> list[Span]:
    """What no span covers."""
    found, until = [], begin
    for start, stop in sorted(spans):
        if start > until:
            found.append((until, start))
        until = max(until, stop)
    return [*found, (until, end)] if end > until else found


def longest(history: History) -> float:
    """Seconds."""
    return max((end - start for start, end in gaps(history)), default=0.0)


def take_over(history: History) -> float:
    """Seconds that a take-over takes at most: the store frees the lock, a waiter hears of it, settles and polls."""
    ttl = history.timing["ttl"]
    return history.timing["freed"] + ttl + START


def too_long(history: History) -> list[Span]:
    """Gaps longer than a take-over in which nothing kept everybody from leading. What a fault did to the store or to
    all is over when it ends, and when the store gives locks away again; only then the time counts. Nor does it while
    every process has ended and the next is on its way: what starts nothing again is found where all must be well."""
    hindrances = [(fault.began, fault.ended + fault.silent) for fault in history.faults if fault.leaderless]
    lives = [(process.started, process.ended or inf) for process in history.processes]
    hindrances += _between(lives, history.began, history.ended)
    limit = take_over(history)
    found = []
    for gap in gaps(history):
        found += [span for span in without(gap, hindrances) if span[1] - span[0] > limit and span[1] < inf]
    return found
