"""The checker sees each thing that must never be, on a history that has only that, and nothing on a good one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chaos.checker import CHECKS, check
from support.made_histories import TIMING, MadeHistory

from cluster_lock.lease.guard import EXIT_GUARD
from cluster_lock.testing.telegram import Delivery

Spoil = Callable[[MadeHistory], None]
BAD: list[tuple[set[str], Spoil]] = []


def bad(*checks: str) -> Callable[[Spoil], Spoil]:
    """What is found in a history that is spoilt like this."""

    def noted(spoil: Spoil) -> Spoil:
        BAD.append((set(checks), spoil))
        return spoil

    return noted


@bad("overlapping_polls", "overlapping_work")
def two_poll(made: MadeHistory) -> None:
    made.history.polls[3].ended = 3.3
    made.a.events[-2] = {**made.a.events[-2]}
    for event in made.a.events:
        if event["kind"] == "answer" and event["at"] == 2.9:
            event["at"] = 3.3


@bad("overlapping_work")
def a_handler_runs_on(made: MadeHistory) -> None:
    update = made.update(102, seq=1, chat=2)
    update.acked = Delivery("b#2", 9, 4.0)
    made.run(update, made.a, 2.6, 3.5, 5)


@bad("sent_after_deadline")
def too_late(made: MadeHistory) -> None:
    made.poll(made.b, 5.95, 9, deadline=5.9)


@bad("sent_after_deadline")
def under_no_term(made: MadeHistory) -> None:
    made.poll(made.b, 0.6, None, deadline=None, lasts=0.1)


@bad("arrived_after_lease")
def a_cable_kept_it(made: MadeHistory) -> None:
    made.poll(made.b, 3.05, 9, deadline=4.0, late=2.4, lasts=0.1)


@bad("arrived_in_later_term", "overlapping_work")
def an_old_poll_arrives(made: MadeHistory) -> None:
    made.poll(made.a, 2.95, 5, deadline=5.5, late=0.6, lasts=0.01)
    made.history.polls[4].ended = 3.4


@bad("handler_after_deadline")
def began_late(made: MadeHistory) -> None:
    update = made.update(102, seq=3)
    update.acked = Delivery("b#2", 9, 4.6)
    made.run(update, made.b, 4.1, 4.2, 9, until=4.0)


@bad("handler_after_deadline")
def ran_on(made: MadeHistory) -> None:
    update = made.update(102, seq=3)
    update.acked = Delivery("b#2", 9, 9.6)
    made.run(update, made.b, 4.1, 9.2, 9, until=9.0)
    made.history.ended = 9.7


@bad("lost_updates")
def confirmed_and_not_handled(made: MadeHistory) -> None:
    made.update(102, seq=3).acked = Delivery("b#2", 9, 4.0)


@bad("lost_updates")
def confirmed_while_it_was_handled(made: MadeHistory) -> None:
    update = made.update(102, seq=1, chat=2)
    made.run(update, made.b, 3.5, 4.5, 9).outcome = "cancelled"
    update.acked = Delivery("b#2", 9, 4.0)


@bad("lost_updates")
def never_confirmed(made: MadeHistory) -> None:
    made.update(102, seq=3)


@bad("never_confirmed")
def handled_for_nothing(made: MadeHistory) -> None:
    made.second.acked = None


@bad("doubled_updates")
def twice_in_good_order(made: MadeHistory) -> None:
    made.run(made.handled, made.b, 3.2, 3.25, 9)


@bad("cut_off_too_soon")
def no_time_to_end(made: MadeHistory) -> None:
    update = made.update(102, seq=1, chat=2)
    made.run(update, made.a, 2.3, 2.95, 5).outcome = "cancelled"
    made.run(update, made.b, 3.5, 3.6, 9)
    update.acked = Delivery("b#2", 9, 4.0)


@bad("out_of_order")
def overtaken(made: MadeHistory) -> None:
    update = made.update(102, seq=3)
    update.acked = Delivery("a#1", 5, 2.5)
    made.run(update, made.a, 2.0, 2.1, 5)


@bad("tokens_grow")
def a_smaller_token(made: MadeHistory) -> None:
    made.role(made.a, 6.0, 7)


@bad("tokens_grow")
def one_token_for_two(made: MadeHistory) -> None:
    made.role(made.a, 6.0, 9)


@bad("index_goes_on")
def the_store_went_back(made: MadeHistory) -> None:
    made.history.stands = [{"at": 1.0, "lease": "x", "index": 5}, {"at": 2.0, "lease": "x", "index": 4}]


@bad("no_leader")
def nobody_leads_for_long(made: MadeHistory) -> None:
    made.poll(made.b, 40.0, 9, deadline=43.0)
    made.history.ended = made.history.recovered = 41.0


@bad("lost_for_nothing")
def a_log_that_nobody_reads_costs_a_term(made: MadeHistory) -> None:
    made.fault("stderr full", 4.0, 5.0, harmless=True)
    made.b.events[-1] = {**made.b.events[-1], "lost": "the lease was not renewed"}


@bad("lost_for_nothing")
def a_log_that_nobody_reads_costs_a_process(made: MadeHistory) -> None:
    made.fault("stderr full", 4.0, 5.0, harmless=True)
    made.b.ended, made.b.code = 6.0, EXIT_GUARD


@bad("keeper_ended")
def a_keeper_leaves_it_to_its_guard(made: MadeHistory) -> None:
    made.fault("worker stopped", 4.0, 5.0, to_worker=True)
    made.history.keepers = [{"name": "b", "at": 4.6, "code": EXIT_GUARD}]


@bad("handed_to_the_dead")
def nobody_was_invited(made: MadeHistory) -> None:
    given_to_a_third(made, died=1.0)


@bad("leaked")
def a_lease_is_left(made: MadeHistory) -> None:
    made.history.leaked = ["1 lease is left"]


@bad("did_not_recover")
def unwell(made: MadeHistory) -> None:
    made.history.recovered, made.history.unwell = None, "a#1 is starting"


@bad("ended_badly")
def an_error_ended_it(made: MadeHistory) -> None:
    made.a.ended, made.a.code = 3.05, 1


def given_to_a_third(made: MadeHistory, *, died: float) -> None:
    """`a` gives the lock to one that is dead, and `b` gets it from there."""
    third = made.process("c#3")
    third.ended, third.code = died, -9
    given = {"at": 3.02, "lease": "z", "index": 7, "holder": "c#3", "given": True}
    made.history.stands = [{"at": 1.0, "lease": "x", "index": 5}, given, {"at": 3.1, "lease": "y", "index": 9}]


def test_an_heir_may_die_after_its_answer() -> None:
    """The leader fetches nothing any more when it has found its heir."""
    made = MadeHistory()
    given_to_a_third(made, died=2.2)
    assert check(made.history).violations == []


def test_a_loss_has_a_reason() -> None:
    """A fault that takes the lease from somebody may be the reason of each loss of the round."""
    made = MadeHistory()
    a_log_that_nobody_reads_costs_a_term(made)
    a_keeper_leaves_it_to_its_guard(made)
    made.fault("bot cut from store", 4.0, 5.0)
    assert check(made.history).violations == []


def test_a_good_history_is_good() -> None:
    """Nothing is found, and nothing counted, where nothing is wrong."""
    verdict = check(MadeHistory().history)
    assert (verdict.violations, verdict.excused) == ([], {})


@pytest.mark.parametrize(("checks", "spoil"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_one_is_bad(checks: set[str], spoil: Spoil) -> None:
    """What was spoilt is found, and nothing else."""
    made = MadeHistory()
    spoil(made)
    assert {finding.check for finding in check(made.history).violations} == checks


def test_no_check_is_left_out() -> None:
    """For every check there is a history that only it, or it among others, finds bad."""
    assert set().union(*(checks for checks, _ in BAD)) == set(CHECKS)


def test_what_a_fault_excuses_is_counted_apart() -> None:
    """Where nobody can make it safe a finding is no violation; it is not forgotten either."""
    made = MadeHistory()
    a_handler_runs_on(made)
    made.fault("key deleted by hand", 2.0, 2.5, excuses=["overlapping_work"])
    verdict = check(made.history)
    assert verdict.violations == []
    assert verdict.excused == {"overlapping_work": 1}


def test_what_the_guarantees_allow_is_counted() -> None:
    """An update that comes again after a loss is no violation."""
    made = MadeHistory()
    made.a.events = [event for event in made.a.events if event["kind"] != "ended"]
    made.ended(made.a, 3.0, 5, lost="the lease was not renewed")
    made.run(made.handled, made.b, 3.2, 3.25, 9)
    verdict = check(made.history)
    assert verdict.violations == []
    assert verdict.excused == {"doubled after an unclean end": 1}


def test_what_a_guard_ended_is_counted() -> None:
    """A handler that does not end takes along what was finished beside it, although the term was left in good order."""
    made = MadeHistory()
    made.run(made.handled, made.b, 3.2, 3.25, 9)
    assert [finding.check for finding in check(made.history).violations] == ["doubled_updates"]
    made.a.ended, made.a.code = 3.05, EXIT_GUARD
    verdict = check(made.history)
    assert verdict.violations == []
    assert verdict.excused == {"doubled after an unclean end": 1}


def test_what_an_heir_took_to_its_grave_is_counted() -> None:
    """An heir that dies before its first getUpdates takes along what it was told; the term before it had ended well."""
    made = MadeHistory()
    made.history.stands = [{"at": 3.05, "lease": "of the heir", "index": 7}, {"at": 3.1, "lease": "of b", "index": 9}]
    made.run(made.handled, made.b, 3.2, 3.25, 9)
    verdict = check(made.history)
    assert verdict.violations == []
    assert verdict.excused == {"doubled after an unclean end": 1}


@pytest.mark.parametrize(("freed", "counted"), [(4.9, False), (5.1, True)])
def test_what_could_not_be_handed_over_is_counted(freed: float, counted: bool) -> None:
    """A term of good order whose lock then stands until it expires has told nobody what it had finished."""
    made = MadeHistory()
    made.history.stands = [{"at": 1.0, "lease": "of a", "index": 5}, {"at": freed, "lease": "of b", "index": 9}]
    made.run(made.handled, made.b, 5.2, 5.25, 9)
    verdict = check(made.history)
    assert bool(verdict.excused) is counted
    assert verdict.excused == ({"doubled after an unclean end": 1} if counted else {})
    assert ("doubled_updates" in {finding.check for finding in verdict.violations}) is not counted


def test_what_was_confirmed_early_is_counted() -> None:
    """An update whose handler had run for long when it was confirmed may be lost with it."""
    made = MadeHistory()
    update = made.update(102, seq=1, chat=2)
    made.run(update, made.b, 3.2, 9.0, 9).outcome = "cancelled"
    update.acked = Delivery("b#2", 9, 8.3)
    made.history.ended = 9.5
    assert check(made.history).excused == {"lost, confirmed early": 1}


def test_who_has_lost_may_end() -> None:
    """A handler that ignores the loss of its lease has until the last deadline that was known before."""
    made = MadeHistory()
    update = made.update(102, seq=1, chat=2)
    update.acked = Delivery("b#2", 9, 5.9)
    made.run(update, made.b, 4.1, 5.8, 9, until=7.0)
    made.b.events[-1]["deadline"] = float("-inf")
    assert check(made.history).violations == []


def test_who_stands_still_polls_nothing() -> None:
    """An open getUpdates of a stopped process is nobody's until it goes on; one that was evicted meanwhile is over."""
    made = MadeHistory()
    open_one = made.poll(made.a, 2.95, 5, deadline=5.9, lasts=9.0)
    made.fault("bot stopped long", 3.0, 3.9, stops=True, client="a#1")
    open_one.evicted = 3.2
    assert check(made.history).violations == []


def test_time_in_which_nobody_can_lead_does_not_count() -> None:
    """A store that takes no writes for a minute is no reason to complain."""
    made = MadeHistory()
    nobody_leads_for_long(made)
    made.fault("store without majority", 6.0, 38.0, leaderless=True)
    assert check(made.history).violations == []


def test_time_before_the_first_poll_counts() -> None:
    """Who loses the lock before it has polled in this round leaves a gap as any other."""
    made = MadeHistory()
    made.history.began, made.a.started = -20.0, -20.5
    assert [finding.check for finding in check(made.history).violations] == ["no_leader"]


def test_time_in_which_nobody_runs_does_not_count() -> None:
    """While every process has ended, and the next has not come up, nobody could lead."""
    made = MadeHistory()
    nobody_leads_for_long(made)
    made.a.ended, made.b.ended = 5.5, 6.5
    made.process("c#3").started = 36.0
    assert check(made.history).violations == []


def test_an_old_term_that_is_told_of_again() -> None:
    """Who led when the round began, and was stopped then, got its token before all that was given meanwhile."""
    made = MadeHistory()
    old = made.process("c#3")
    old.started = -5.0
    made.role(old, 4.0, 2)
    assert check(made.history).violations == []


def test_a_store_that_was_started_may_be_silent() -> None:
    """The time in which a new server gives nothing away counts as little as that in which it was down; what comes
    after does."""
    made = MadeHistory()
    nobody_leads_for_long(made)
    fault = made.fault("store killed", 6.0, 22.0, leaderless=True, silent=4.0)
    assert check(made.history).violations == []
    fault.silent = 0.0
    assert [finding.check for finding in check(made.history).violations] == ["no_leader"]


def test_who_frees_locks_late_is_given_the_time() -> None:
    """A take-over may take as long as the store needs to free the lock of one who is silent, and no longer."""
    made = MadeHistory()
    made.poll(made.b, 23.5, 9, deadline=26.5)
    made.history.ended = made.history.recovered = 24.0
    assert [finding.check for finding in check(made.history).violations] == ["no_leader"]
    made.history.timing = {**TIMING, "freed": 8.0}
    assert check(made.history).violations == []
