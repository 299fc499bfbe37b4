"""The oracle on hand-made histories: each kind of wrong must be reported, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from cluster_lock.testing.telegram import BotKey, Oracle, Poll, Report

BOT = BotKey(42)


class Scene:
    """An oracle whose clock the test sets; polls and updates are written down as they would have happened."""

    def __init__(self) -> None:
        self.now = 0.0
        self.oracle = Oracle(lambda: self.now)

    def poll(
        self,
        client: str,
        arrived: float,
        ended: float | None = None,
        *,
        conflict: str | None = None,
        evicted: float | None = None,
        term: int | None = None,
        sent: float | None = None,
        bot: BotKey = BOT,
    ) -> Poll:
        poll = Poll(bot, client, arrived, term, sent, evicted=evicted)
        self.oracle.poll_arrived(poll)
        if ended is not None:
            self.now = ended
            self.oracle.poll_ended(poll, "answered", 200 if conflict is None else 409, conflict)
        return poll

    def update(self, update_id: int, chat: int = 1) -> None:
        self.oracle.pushed(BOT, update_id, chat)

    def handled(self, update_id: int, start: float, end: float | None, client: str = "a", outcome: str = "ok") -> None:
        self.oracle.handled(update_id, client=client, start=start, end=end, outcome=None if end is None else outcome)

    def ack(self, *update_ids: int, client: str = "a") -> None:
        self.oracle.acknowledged(BOT, update_ids, client, None)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A scene that must stay consistent: what is found and what is counted are the same."""
    scene = Scene()
    yield scene
    report = scene.oracle.report()
    for name, cases in report.findings.items():
        assert len(cases) == getattr(report, name), name


def wrongs(report: Report) -> dict[str, int]:
    """The numbers of a report that speak of something wrong, where they are not 0."""
    fine = {"updates_sent", "updates_handled", "pending", "findings"}
    return {kind: number for kind, number in report.as_json().items() if kind not in fine and number}


def test_a_clean_history_has_nothing_wrong(scene: Scene) -> None:
    """Polls one after the other, each update handled once in order and acknowledged."""
    for update_id in (7, 8):
        scene.update(update_id)
    scene.poll("a", 1.0, 2.0)
    scene.handled(7, 2.0, 2.1)
    scene.handled(8, 2.1, 2.2)
    scene.ack(7, 8)
    scene.poll("b", 2.5, 3.0)
    report = scene.oracle.report()
    assert wrongs(report) == {}
    assert (report.updates_sent, report.updates_handled, report.pending) == (2, 2, 0)


def test_two_live_polls_at_once_are_an_overlap(scene: Scene) -> None:
    """Polls of two clients for one bot that are open at the same moment are one overlapping pair."""
    scene.poll("a", 1.0, 3.0)
    scene.poll("b", 2.999, 4.0)
    assert wrongs(scene.oracle.report()) == {"overlapping_polls": 1}
    [pair] = scene.oracle.report().findings["overlapping_polls"]
    assert (pair["first"]["client"], pair["second"]["client"]) == ("a", "b")


def test_a_poll_that_never_ended_overlaps_with_all_that_follow(scene: Scene) -> None:
    """An open poll is live until somebody says otherwise."""
    scene.poll("a", 1.0)
    scene.poll("b", 2.0, 3.0)
    scene.poll("b", 4.0, 5.0)
    assert wrongs(scene.oracle.report()) == {"overlapping_polls": 2}


def test_one_client_may_poll_twice_and_two_bots_may_poll_at_once(scene: Scene) -> None:
    """Only different clients of one bot are rivals."""
    scene.poll("a", 1.0, 3.0)
    scene.poll("a", 2.0, 4.0)
    scene.poll("b", 1.0, 4.0, bot=BotKey(43))
    scene.poll("b", 1.0, 4.0, bot=BotKey(42, is_test=True))
    assert wrongs(scene.oracle.report()) == {}


@pytest.mark.parametrize("end", ["dead", "frozen"])
def test_the_parked_poll_of_a_dead_or_frozen_client_is_not_live(scene: Scene, end: str) -> None:
    """Since the moment that the harness names, also when it says so later."""
    scene.poll("a", 1.0)
    scene.poll("b", 3.0, 4.0)
    getattr(scene.oracle, end)("a", 2.9)
    assert wrongs(scene.oracle.report()) == {}


def test_a_client_that_was_frozen_too_late_overlaps(scene: Scene) -> None:
    """Between the newcomer's arrival and the freeze both were live."""
    scene.poll("a", 1.0)
    scene.oracle.frozen("a", 3.1)
    scene.poll("b", 3.0, 4.0)
    assert wrongs(scene.oracle.report()) == {"overlapping_polls": 1}


def test_a_thawed_client_is_live_again_with_the_poll_that_nobody_ended(scene: Scene) -> None:
    """A poll that was not evicted in the meantime can bring updates again, so it counts again."""
    scene.poll("a", 1.0, 9.0)
    scene.oracle.frozen("a", 2.0)
    scene.oracle.thawed("a", 5.0)
    scene.poll("b", 3.0, 4.0)
    assert wrongs(scene.oracle.report()) == {}
    scene.poll("c", 6.0, 7.0)
    assert wrongs(scene.oracle.report()) == {"overlapping_polls": 1}


def test_a_poll_that_was_evicted_while_its_client_was_frozen_stays_dead(scene: Scene) -> None:
    """It is held for its late 409 and can bring nothing; that 409 is no live conflict either."""
    scene.poll("a", 1.0, 6.0, conflict="held", evicted=3.0)
    scene.oracle.frozen("a", 2.0)
    scene.oracle.thawed("a", 5.0)
    scene.poll("b", 3.0, 9.0)
    assert wrongs(scene.oracle.report()) == {}


def test_what_a_thawed_client_sends_counts(scene: Scene) -> None:
    """A new poll of a client that is back, beside the new leader's, is an overlap."""
    scene.oracle.frozen("a", 2.0)
    scene.oracle.thawed("a", 5.0)
    scene.poll("b", 4.0, 8.0)
    scene.poll("a", 5.1, 5.2)
    assert wrongs(scene.oracle.report()) == {"overlapping_polls": 1}


def test_conflicts_count_when_somebody_is_there_to_read_them(scene: Scene) -> None:
    """A 409 to a live client counts, one to a dead or a frozen client does not."""
    scene.poll("a", 1.0, 2.0, conflict="x")
    assert wrongs(scene.oracle.report()) == {"conflicts_live": 1}
    scene.oracle.dead("a", 1.5)
    assert wrongs(scene.oracle.report()) == {}


def test_bytes_that_outlive_their_sender_are_late_and_no_overlap(scene: Scene) -> None:
    """What arrives after its client's death is counted apart; a new process of that name is not late."""
    scene.oracle.dead("a", 2.0)
    scene.poll("b", 3.0, 9.0)
    scene.poll("a", 8.0, 9.5)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1}
    scene.oracle.started("a", 10.0)
    scene.poll("a", 11.0, 12.0)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1}


def test_a_clients_own_record_of_its_write_decides(scene: Scene) -> None:
    """Written before the death: late. Written after it: somebody else under that name, who counts."""
    scene.oracle.dead("a", 2.0)
    scene.poll("b", 3.0, 9.0)
    scene.poll("a", 4.0, 4.5, sent=1.9)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1}
    scene.poll("a", 5.0, 5.5, sent=4.9)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1, "overlapping_polls": 1}


def test_an_arrival_after_the_end_of_its_term(scene: Scene) -> None:
    """Written in time it is late; written after the end it is wrong, and an overlap like any other."""
    scene.oracle.term_ended("a", term=5, at=2.0)
    scene.poll("b", 3.0, 9.0)
    scene.poll("a", 4.0, 4.5, term=5, sent=1.9)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1}
    scene.poll("a", 5.0, 5.5, term=5, sent=4.9)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1, "sent_after_term": 1, "overlapping_polls": 1}
    scene.poll("a", 9.6, 9.9, term=6, sent=9.6)
    assert wrongs(scene.oracle.report()) == {"late_arrivals": 1, "sent_after_term": 1, "overlapping_polls": 1}


def test_an_acknowledged_update_that_nobody_finished_is_lost(scene: Scene) -> None:
    """Acknowledged without a run, with a run that was cancelled, or with one that never ended: lost."""
    for update_id in (1, 2, 3, 4):
        scene.update(update_id)
    scene.handled(2, 1.0, 1.5, outcome="cancelled")
    scene.handled(3, 2.0, None)
    scene.handled(4, 3.0, 3.5, outcome="failed")
    scene.ack(1, 2, 3, 4)
    report = scene.oracle.report()
    assert wrongs(report) == {"lost": 3}
    assert [case["update_id"] for case in report.findings["lost"]] == [1, 2, 3]


def test_what_is_left_over_is_lost_only_after_the_drain(scene: Scene) -> None:
    """While traffic runs, a pending update or a run that has begun may still come to its end."""
    for update_id in (1, 2, 3):
        scene.update(update_id)
    scene.handled(2, 1.0, None)
    scene.ack(1, 2)
    assert wrongs(scene.oracle.report(drained=False)) == {"lost": 1}
    report = scene.oracle.report()
    assert wrongs(report) == {"lost": 3}
    assert report.pending == 1


def test_an_update_finished_and_not_acknowledged_is_pending_and_not_lost(scene: Scene) -> None:
    """It was handled; that the server still has it is no loss."""
    scene.update(1)
    scene.handled(1, 1.0, 1.5)
    report = scene.oracle.report()
    assert wrongs(report) == {}
    assert report.pending == 1


def test_an_expired_update_is_lost(scene: Scene) -> None:
    """Nobody came for it in 24 hours."""
    scene.update(1)
    scene.oracle.forgotten(BOT, [1], "expired")
    assert wrongs(scene.oracle.report()) == {"lost": 1}


def test_an_update_handled_twice_is_a_duplicate_with_its_clients(scene: Scene) -> None:
    """Two runs that came to their end are one duplicate, listed with who ran and when."""
    scene.update(1)
    scene.update(2)
    scene.handled(1, 1.0, 1.5)
    scene.handled(1, 2.0, 2.5, client="b")
    scene.handled(2, 3.0, 3.5, outcome="cancelled")
    scene.handled(2, 4.0, 4.5, client="b")
    report = scene.oracle.report()
    assert wrongs(report) == {"duplicated": 1}
    [case] = report.findings["duplicated"]
    assert [(run["client"], run["start"]) for run in case["runs"]] == [("a", 1.0), ("b", 2.0)]


def test_first_starts_of_a_chat_must_be_in_sequence(scene: Scene) -> None:
    """An update whose first start precedes that of an earlier one of its chat is out of order; other chats are free."""
    for update_id, chat in ((1, 1), (2, 1), (3, 2), (4, 1)):
        scene.update(update_id, chat)
    scene.handled(3, 0.5, 0.6)
    scene.handled(2, 1.0, 1.1)
    scene.handled(1, 2.0, 2.1)
    scene.handled(4, 3.0, 3.1)
    report = scene.oracle.report()
    assert wrongs(report) == {"out_of_order": 1}
    assert report.findings["out_of_order"][0]["update_id"] == 2


def test_a_query_may_overtake(scene: Scene) -> None:
    """A query that begins before an earlier update of its chat, or that a later one overtakes, breaks no order."""
    scene.update(1)
    scene.oracle.pushed(BOT, 2, 1, ordered=False)
    scene.update(3)
    for update_id, start in ((2, 1.0), (1, 2.0), (3, 3.0)):
        scene.handled(update_id, start, start + 0.1)
    assert scene.oracle.report(drained=False).out_of_order == 0


def test_a_redelivery_does_not_break_the_order(scene: Scene) -> None:
    """Only the first start of each update counts: what comes again after a crash comes late by nature."""
    for update_id in (1, 2):
        scene.update(update_id)
    scene.handled(1, 1.0, None)
    scene.handled(2, 1.5, 1.6)
    scene.handled(1, 9.0, 9.1, client="b")
    assert wrongs(scene.oracle.report()) == {}


def test_a_run_is_reported_at_its_start_and_again_with_its_end(scene: Scene) -> None:
    """The second report completes the first, it is no second run."""
    scene.update(1)
    scene.handled(1, 1.0, None)
    scene.handled(1, 1.0, 1.5)
    [update] = scene.oracle.updates()
    assert [(run.start, run.end, run.outcome) for run in update.runs] == [(1.0, 1.5, "ok")]


def test_a_report_about_an_update_that_nobody_pushed_is_an_error(scene: Scene) -> None:
    """A harness that mixes up its bots must hear of it."""
    with pytest.raises(KeyError):
        scene.handled(99, 1.0, 1.5)


def test_changes_name_the_gap_between_two_clients(scene: Scene) -> None:
    """From the end of the old client's last live poll, or its death, to the first poll of the new one."""
    scene.poll("a", 1.0, 2.0)
    scene.poll("a", 2.0, 3.0)
    scene.poll("b", 3.25, 4.0)
    scene.poll("b", 4.0)
    scene.oracle.dead("b", 5.0)
    scene.poll("c", 6.5, 7.0)
    found = scene.oracle.changes(42)
    assert [(change.old, change.new) for change in found] == [("a", "b"), ("b", "c")]
    assert [change.gap_ms for change in found] == [250.0, 1500.0]


def test_an_overlap_is_a_negative_gap_and_a_late_arrival_no_change(scene: Scene) -> None:
    """The newcomer came before the old poll ended; bytes of a dead client change nobody's leadership."""
    scene.poll("a", 1.0, 3.0)
    scene.poll("b", 2.5, 4.0)
    scene.oracle.dead("a", 3.5)
    scene.poll("a", 5.0, 5.1)
    scene.poll("b", 6.0, 7.0)
    [change] = scene.oracle.changes()
    assert change.gap_ms == -500.0


def test_ignored_clients_do_not_count(scene: Scene) -> None:
    """A rogue that the harness let loose itself is left out when it says so."""
    scene.poll("a", 1.0, 3.0)
    scene.poll("rogue", 2.0, 4.0)
    assert scene.oracle.report(ignore={"rogue"}).overlapping_polls == 0
    assert scene.oracle.changes(ignore={"rogue"}) == []
    assert scene.oracle.report().overlapping_polls == 1


def test_reports_are_per_bot_when_one_is_named(scene: Scene) -> None:
    """Each bot has its own numbers, and together they are the whole."""
    scene.update(1)
    scene.oracle.pushed(BotKey(43), 5, 1)
    assert [scene.oracle.report(bot=bot).updates_sent for bot in (42, 43, None)] == [1, 1, 2]


def test_many_overlaps_are_all_counted(scene: Scene) -> None:
    """Three clients at once are three pairs, and ping-pong is counted poll by poll."""
    for client, start in (("a", 1.0), ("b", 1.1), ("c", 1.2)):
        scene.poll(client, start, 2.0)
    assert scene.oracle.report().overlapping_polls == 3
    times = [3.0, 4.0, 5.0, 6.0]
    for (start, _), client in zip(pairwise(times), "aba", strict=True):
        scene.poll(client, start, start + 1.5)
    assert scene.oracle.report().overlapping_polls == 5


def test_what_is_said_of_a_history_that_was_cleared(scene: Scene) -> None:
    """A handler of an update from before may end, or come once more, after the history was cleared: that is left out.
    An update that nobody ever pushed is still a fault of who speaks of it."""
    scene.update(1)
    scene.oracle.clear()
    scene.handled(1, 1.0, 2.0)
    assert scene.oracle.updates() == []
    with pytest.raises(KeyError):
        scene.handled(2, 1.0, 2.0)


def test_clear_forgets_the_history(scene: Scene) -> None:
    """Numbers, order and overlaps begin again."""
    scene.update(1)
    scene.poll("a", 1.0, 3.0)
    scene.poll("b", 2.0, 4.0)
    scene.oracle.clear()
    assert wrongs(scene.oracle.report()) == {}
    assert scene.oracle.next_seq(BOT, 1) == 1
