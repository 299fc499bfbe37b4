"""From what the oracle saw to the picture of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster_lock.testing.telegram import SeenPoll, Update

from .instance import Instance
from .table import name
from .timeline import Lane, Mark, Picture, Span
from .verdict import Verdict

PAUSE = 1.2
"""Seconds without a poll after which a leader is not shown to lead: longer than the poller's own pace ever waits."""


def picture_of(
    verdict: Verdict,
    instances: Sequence[Instance],
    polls: Iterable[SeenPoll],
    updates: Iterable[Update],
    span: Span,
) -> Picture:
    """`span`: from when until when (`clock.now()`)."""
    lanes = {
        instance.name: Lane(
            instance.name,
            down=[(began, min(ended if ended is not None else span[1], span[1])) for began, ended in instance.downs],
            stopped=[(began, ended if ended is not None else span[1]) for began, ended in instance.freezes],
        )
        for instance in instances
    }
    for client, led in reigns(polls, span[1]):
        # A lane of its own for a stranger: then above all the picture is wanted.
        lanes.setdefault(name(client), Lane(name(client))).led.append(led)
    for update in updates:
        for run in update.runs:
            lanes[name(run.client)].handled.append(run.start)
    marks = [Mark(change.at, change.words, change.gap_ms) for change in verdict.changes]
    report = verdict.report
    words = "; ".join(verdict.problems) or (
        f"{report.updates_handled} of {report.updates_sent} updates handled, none lost, none out of order,"
        f" never two pollers; {report.duplicated} handled twice after an unclean end"
    )
    title = f"{verdict.instances} instances of one bot, one lock on {verdict.backend}"
    return Picture(title, words, verdict.ok, span, list(lanes.values()), marks)


def reigns(polls: Iterable[SeenPoll], until: float) -> list[tuple[str, Span]]:
    """Who polled from when until when: polls of one client, with neither another's nor a long pause between them."""
    result: list[tuple[str, Span]] = []
    for item in polls:
        if not item.spans:
            continue
        began, ended = item.poll.arrived, min(item.last_live, until)
        if result and result[-1][0] == item.poll.client and began - result[-1][1][1] < PAUSE:
            result[-1] = (item.poll.client, (result[-1][1][0], max(ended, result[-1][1][1])))
        else:
            result.append((item.poll.client, (began, ended)))
    return result
