"""The demo's verdict on hand-made histories: what is right must pass, and each kind of wrong must not."""

from __future__ import annotations

from typing import Any

import pytest

from bot.demo.changes import DemoChange, DemoFault, Kind, changes_of
from bot.demo.verdict import Verdict, judge
from cluster_lock.testing.telegram import BotKey, Report, Run, Update
from cluster_lock.testing.telegram import Change as Passed

BOT = BotKey(42)
OLD, NEW = "bot-1#100", "bot-2#200"


def report(**numbers: int) -> Report:
    names = (
        "updates_sent updates_handled lost duplicated out_of_order overlapping_polls conflicts_live late_arrivals"
        " sent_after_term pending renumbered"
    )
    zeros = dict.fromkeys(names.split(), 0)
    return Report(**{**zeros, "updates_sent": 10, "updates_handled": 10, **numbers})  # type: ignore[arg-type]


def run(client: str, term: int, start: float, outcome: str | None = "ok") -> Run:
    return Run(client, term, start, None if outcome is None else start + 0.1, outcome)


def update(*runs: Run) -> Update:
    return Update(BOT, 1000, chat=1, seq=1, pushed=0.0, runs=list(runs))


def verdict(*updates: Update, changes: Any = (), unconfirmed: Any = (), **numbers: int) -> Verdict:
    return judge("etcd", 3, report(**numbers), updates, changes, unconfirmed)


def fault(kind: Kind, client: str, began: float, ended: float | None = None, *, must_change: bool = True) -> DemoFault:
    return DemoFault(kind=kind, words=kind, client=client, began=began, ended=ended, must_change=must_change)


def test_a_clean_run_is_ok() -> None:
    """Nothing wrong and every update handled once is ok, and the object has the promised fields."""
    change = DemoChange(
        kind="graceful", gap_ms=34.5, passed=Passed("42", OLD, NEW, 1.0, 1.0345), fault=fault("graceful", OLD, 0.9)
    )
    found = verdict(update(run(OLD, 5, 1.0)), changes=[change])
    assert found.as_json() == {
        "backend": "etcd",
        "instances": 3,
        "updates_sent": 10,
        "updates_handled": 10,
        "lost": 0,
        "duplicated": 0,
        "out_of_order": 0,
        "overlapping_polls": 0,
        "conflicts_live": 0,
        "late_arrivals": 0,
        "changes": [{"kind": "graceful", "gap_ms": 34.5}],
        "ok": True,
    }


@pytest.mark.parametrize(
    "number", ["lost", "out_of_order", "overlapping_polls", "conflicts_live", "late_arrivals", "sent_after_term"]
)
def test_one_of_these_is_not_ok(number: str) -> None:
    """A single lost update, disorder, overlap, live conflict, late arrival or poll past a term's end is named."""
    found = verdict(**{number: 1})
    assert not found.ok
    assert any(number.replace("_", " ") in problem for problem in found.problems)


def test_a_run_without_updates_is_not_ok() -> None:
    """Nothing sent proves nothing."""
    assert not verdict(updates_sent=0, updates_handled=0).ok


def test_double_after_a_crash_is_ok() -> None:
    """An update that was handled in a term without a confirmation may be handled again in the next."""
    assert verdict(update(run(OLD, 5, 1.0), run(NEW, 6, 4.0)), unconfirmed={(OLD, 5)}, duplicated=1).ok


def test_double_after_a_hand_over_is_not_ok() -> None:
    """An update that was handled in a term that ended in good order may not be handled again."""
    found = verdict(update(run(OLD, 5, 1.0), run(NEW, 6, 4.0)), unconfirmed={(NEW, 6)}, duplicated=1)
    assert not found.ok


def test_double_within_a_term_is_not_ok() -> None:
    """The same term may not handle an update twice, however it ended."""
    assert not verdict(update(run(OLD, 5, 1.0), run(OLD, 5, 2.0)), unconfirmed={(OLD, 5)}, duplicated=1).ok


def test_a_cancelled_run_is_no_double() -> None:
    """What was cut at the drain limit, or died under way, did not count as handled, so it comes again rightly."""
    assert verdict(update(run(OLD, 5, 1.0, "cancelled"), run(NEW, 6, 2.0))).ok
    assert verdict(update(run(OLD, 5, 1.0, None), run(NEW, 6, 2.0))).ok


@pytest.mark.parametrize("kind", ["graceful", "crash", "stall"])
def test_nobody_took_over_is_not_ok(kind: Kind) -> None:
    """A fault after which another instance has to lead, and none did, is a problem."""
    changes = changes_of([fault(kind, OLD, 1.0)], [])
    assert not verdict(changes=changes).ok


@pytest.mark.parametrize("kind", ["stall", "backend_restart"])
def test_a_leader_that_leads_on_has_no_gap(kind: Kind) -> None:
    """A stop shorter than the margin, and a restart of the backend, that the leader survives: gap_ms null, and ok."""
    [change] = changes_of([fault(kind, OLD, 1.0, 2.0, must_change=False)], [])
    assert (change.kind, change.gap_ms) == (kind, None)
    assert verdict(changes=[change]).ok


def test_changes_find_their_faults() -> None:
    """Each change of leader belongs to the fault that hit the old leader before it, and gap_ms is the time between."""
    third = "bot-3#300"
    faults = [fault("graceful", OLD, 1.0), fault("crash", NEW, 5.0)]
    found = changes_of(faults, [Passed("42", OLD, NEW, 1.1, 1.15), Passed("42", NEW, third, 5.0, 7.5)])
    assert [(change.kind, change.gap_ms) for change in found] == [("graceful", 50.0), ("crash", 2500.0)]


def test_a_change_of_nobodys_making_is_told() -> None:
    """A leader that loses its lease by itself is a stall too, in its place by time, and not hidden."""
    survived = fault("stall", OLD, 1.0, 2.0, must_change=False)
    found = changes_of([survived, fault("crash", NEW, 9.0)], [Passed("42", OLD, NEW, 4.0, 5.0)])
    assert [(change.kind, change.gap_ms, change.fault is None) for change in found] == [
        ("stall", None, False),
        ("stall", 1000.0, True),
        ("crash", None, False),
    ]
