"""Which terms ended in such a way that what was handled under them may be handled again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf
from typing import Any

from cluster_lock.lease.guard import EXIT_GUARD
from cluster_lock.testing.telegram import Run, Update

from .history import History


def unclean_terms(history: History) -> set[tuple[str, int | None]]:
    """Terms that ended by a loss or with their process, or whose lock could not be given away. The guard ends a process
    that has left its term in good order, too, while something of it still works."""
    ends = [(process.client, event) for process in history.processes for event in process.of("ended")]
    ended = {(client, event["term"]) for client, event in ends}
    begun = {(run.client, run.term) for run in history.runs if history.death(run.client) < inf}
    unclean = ((client, event) for client, event in ends if event["lost"] is not None or stood_on(history, event))
    guarded = {
        (process.client, event["term"])
        for process in history.processes
        if process.code == EXIT_GUARD
        for event in process.of("ended")[-1:]
    }
    return (begun - ended) | {(client, event["term"]) for client, event in unclean} | guarded


def stood_on(history: History, ended: dict[str, Any]) -> bool:
    """The lock stood in the store for longer, after the end of its term, than giving it away takes: two requests. So
    nobody was told how it ended."""
    term, at = ended["term"], ended["at"]
    after = [stands["at"] for stands in history.stands if stands["at"] > at and stands["index"] != term]
    stood = any(stands["index"] == term for stands in history.stands)
    return stood and min(after, default=history.ended) > at + 2 * history.timing["request"]


def repetitions(update: Update) -> Iterator[tuple[Run, Run]]:
    """Each run of it that came to its end, with the next one that did."""
    return pairwise(sorted(update.finished_runs, key=lambda run: run.start))


def unconfirmed(history: History) -> Callable[[Run, Run], bool]:
    """Could nobody know, when the later run began, that the earlier one had finished? Its own term ended uncleanly, or
    that of somebody in between to whom the lock was given, who had heard of it and died."""
    unclean = unclean_terms(history)
    tokens = {term for _, term in unclean}
    good = {event["term"] for process in history.processes for event in process.of("ended") if event["lost"] is None}
    tokens |= {stands["index"] for stands in history.stands if stands["lease"]} - good

    def answer(run: Run, later: Run) -> bool:
        between = range((run.term or 0) + 1, later.term or 0)
        return (run.client, run.term) in unclean or any(token in between for token in tokens if token is not None)

    return answer
