"""Was it right? Pure functions over what the simulator's oracle saw, so that hand-made histories can be judged too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_lock.testing.telegram import Report, Update

from .changes import DemoChange

MUST_BE_ZERO = ("overlapping_polls", "lost", "out_of_order", "conflicts_live", "late_arrivals", "sent_after_term")

TermOf = tuple[str, int | None]
"""A term as the oracle names it: the client and its fencing token."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems`: one sentence each for what must not be; none means that all is well."""

    backend: str
    instances: int
    report: Report
    changes: Sequence[DemoChange]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        report = self.report
        return {
            "backend": self.backend,
            "instances": self.instances,
            "updates_sent": report.updates_sent,
            "updates_handled": report.updates_handled,
            "lost": report.lost,
            "duplicated": report.duplicated,
            "out_of_order": report.out_of_order,
            "overlapping_polls": report.overlapping_polls,
            "conflicts_live": report.conflicts_live,
            "late_arrivals": report.late_arrivals,
            "changes": [{"kind": change.kind, "gap_ms": change.gap_ms} for change in self.changes],
            "ok": self.ok,
        }


def judge(
    backend: str,
    instances: int,
    report: Report,
    updates: Sequence[Update],
    changes: Sequence[DemoChange],
    unconfirmed: Collection[TermOf],
    failures: Sequence[str] = (),
) -> Verdict:
    """`unconfirmed`: the terms that ended without their final confirmation, by crash, stall or loss. What was delivered
    in one of them may come again; everything else may not. `failures`: what went wrong besides."""
    problems = list(failures)
    problems += [
        f"{name.replace('_', ' ')}: {count}, and not 0" for name in MUST_BE_ZERO if (count := getattr(report, name))
    ]
    if not report.updates_sent:
        problems.append("no update was sent, so nothing was shown")
    wrong = [update for update in updates if not _may_be_double(update, unconfirmed)]
    if wrong:
        ids = ", ".join(str(update.update_id) for update in wrong[:5])
        problems.append(f"{len(wrong)} updates were handled twice although their term ended in good order: {ids}")
    for change in changes:
        if change.gap_ms is None and change.fault is not None and change.fault.must_change:
            problems.append(f"nobody took over after: {change.words}")
    return Verdict(backend, instances, report, changes, tuple(problems))


def _may_be_double(update: Update, unconfirmed: Collection[TermOf]) -> bool:
    """True unless it was handled to the end in a term that ended in good order, and again after it."""
    runs = sorted(update.finished_runs, key=lambda run: run.start)
    terms = [(run.client, run.term) for run in runs]
    return len(set(terms)) == len(terms) and all(term in unconfirmed for term in terms[:-1])
