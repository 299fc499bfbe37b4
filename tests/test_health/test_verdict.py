"""Ready, alive, and the one word: what each state of a process means to anybody who probes it."""

from __future__ import annotations

import pytest
from support.health import LOCK, TIMING, TRUSTED, leader_board, own_time, poller, renew, standby_board

from cluster_lock import clock
from cluster_lock.health import Board
from cluster_lock.health.verdict import STARTS_FOR, status, why_not_alive, why_not_ready
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason, Origin


def test_a_standby_that_could_take_over_is_ready() -> None:
    """A standby with a lease is ready and running, though it leads nothing."""
    with own_time():
        board = standby_board()
        assert (why_not_ready(board), why_not_alive(board), status(board)) == ([], [], "running")


def test_a_leader_that_renews_is_ready_through_many_periods() -> None:
    """Ready holds at every moment between two renewals that come in time."""
    with own_time() as pass_time:
        board = leader_board()
        for _ in range(20):
            for _ in range(5):
                pass_time(TIMING.renew_every / 5)
                assert why_not_ready(board) == []
            renew(board)


def test_one_lost_answer_is_not_yet_trouble() -> None:
    """A renewal that needs its whole time limit once does not make a healthy leader unready."""
    with own_time() as pass_time:
        board = leader_board()
        pass_time(TIMING.renew_every + TIMING.request - 0.01)
        board.lease_unsure("no answer within 4.0 s")
        assert why_not_ready(board) == []


@pytest.mark.parametrize("lead", [True, False])
def test_who_cannot_renew_is_not_ready(lead: bool) -> None:
    """Leader or standby: once a renewal is missing it is not ready, says why, and is alive all the same."""
    with own_time() as pass_time:
        board = leader_board() if lead else standby_board()
        assert status(board) == "running"
        pass_time(TIMING.renew_every)
        board.lease_unsure("etcd does not answer")
        pass_time(TIMING.request + 0.01)
        (reason,) = why_not_ready(board)
        assert "cannot be renewed" in reason
        assert "etcd does not answer" in reason
        assert (why_not_alive(board), status(board)) == ([], "failing")
        renew(board)
        assert status(board) == "running"


def test_a_lease_that_is_over_is_not_ready() -> None:
    """At the deadline there is no lease, whether or not anybody has said that it was lost."""
    with own_time() as pass_time:
        board = leader_board()
        pass_time(TRUSTED)
        assert why_not_ready(board) == ["there is no lease"]
        board.lease_lost("the lease was last renewed 14.0 s ago (ttl 15 s)")
        assert "14.0 s ago" in why_not_ready(board)[0]


@pytest.mark.parametrize(("field", "alive"), [("deaf", False), ("failing", True), ("storm", True)])
def test_a_leader_that_polls_in_vain_is_not_ready(field: str, alive: bool) -> None:
    """One that is deaf, whose polls fail, or in a conflict storm, is not ready; only deafness is what a restart would
    mend."""
    with own_time():
        board = leader_board()
        board.pollers.tell([poller()])
        assert why_not_ready(board) == []
        board.pollers.tell([poller(**{field: True})])
        assert len(why_not_ready(board)) == 1
        assert (why_not_alive(board) == []) is alive
        assert status(board) == ("failing" if alive else "stuck")


def test_a_window_that_stays_full_is_not_ready() -> None:
    """A leader that has heard nothing new for a minute, because its window is full, is not ready; it is alive, and
    ready again as soon as there is room. The keeper counts on while the worker says nothing."""
    with own_time() as pass_time:
        board = leader_board()
        board.pollers.tell([poller(window_full=True, window_full_for=50.0)])
        assert why_not_ready(board) == []
        pass_time(10.5)
        renew(board)
        assert len(why_not_ready(board)) == 1
        assert why_not_alive(board) == []
        board.pollers.tell([poller()])
        assert why_not_ready(board) == []


def test_a_storm_of_an_earlier_term_is_over_for_a_standby() -> None:
    """Who stepped down in a storm could take over again: its standby is ready."""
    with own_time():
        board = leader_board()
        board.pollers.tell([poller(storm=True, polling=False)])
        assert len(why_not_ready(board)) == 1
        board.term_ended(
            LOCK, EndReason("stepped down: somebody polls outside of the lock", EndCode.CONFLICTS), Ending.RELEASED
        )
        assert why_not_ready(board) == []


def test_a_worker_must_be_there_and_move() -> None:
    """With a worker: ready only once it is, not when it is silent for stall_limit, stuck when nobody ends it then."""
    with own_time() as pass_time:
        board = standby_board(worker=True, stall_limit=5.0)
        assert (why_not_ready(board), status(board)) == (["the worker is starting"], "starting")
        board.worker_changed("starting", 4711)
        board.worker_changed("ready")
        assert status(board) == "running"
        for _ in range(8):
            pass_time(4.9)
            renew(board)
            board.worker_alive()
            assert status(board) == "running"
        pass_time(5.1)
        renew(board)
        assert (status(board), why_not_alive(board)) == ("failing", [])
        pass_time(10)
        renew(board)
        assert status(board) == "stuck"
        board.worker_changed("gone", reason="the worker was killed by signal 9")
        assert (why_not_alive(board), status(board)) == ([], "failing")


def test_starting_does_not_last() -> None:
    """A process that was never ready is starting for a minute, and failing after it, but alive."""
    with own_time() as pass_time:
        board = Board("web-1")
        board.lease_unsure("no lease from etcd: nobody listens")
        assert status(board) == "starting"
        pass_time(STARTS_FOR + 1)
        assert status(board) == "failing"
        assert why_not_alive(board) == []
        assert any("nobody listens" in reason for reason in why_not_ready(board))


def test_who_does_not_contend_is_not_ready() -> None:
    """Not while it cools down, which it says; ready again when it contends again; not when it is stopping."""
    with own_time() as pass_time:
        board = standby_board()
        board.cooling_down(LOCK, 8.0, "Telegram has not been reached")
        assert "not contending for 8 s" in why_not_ready(board)[0]
        pass_time(8.0)
        renew(board)
        board.standing_by(LOCK)
        assert why_not_ready(board) == []
        board.stop("SIGTERM")
        assert (status(board), why_not_alive(board)) == ("stopping", [])
        assert why_not_ready(board) == ["it is stopping: SIGTERM"]


def test_ages_grow_between_two_reports() -> None:
    """What a worker said half a second ago is half a second older now."""
    with own_time() as pass_time:
        board = leader_board()
        board.pollers.tell([poller(last_poll_age=2.0, last_success_age=None)])
        pass_time(0.5)
        (state,) = board.pollers.states()
        assert (state["last_poll_age"], state["last_success_age"]) == (2.5, None)


def test_several_locks_are_ready_together() -> None:
    """One lock that is not contended for makes the process not ready, and is named."""
    with own_time():
        board = standby_board()
        board.standing_by("telegram/43")
        board.term_began("telegram/43", 5, Origin.RELEASED)
        assert why_not_ready(board) == []
        board.stopped(LOCK)
        assert why_not_ready(board) == [f"{LOCK}: not contended for"]
        assert board.main_lock() is board.locks["telegram/43"]
        assert clock.now() == 1000.0
