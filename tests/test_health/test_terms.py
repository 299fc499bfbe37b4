"""The timeline of terms and what is counted of them, told by real elections."""

from __future__ import annotations

import asyncio

import pytest
from support.health import LOCK, leader_board, own_time, poller, standby_board
from support.sessions import key_of, session

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.health import Board
from cluster_lock.health.peers import SessionPeers
from cluster_lock.health.terms import REMEMBERED
from cluster_lock.observer import Ending
from cluster_lock.testing.faulty import FaultyDriver
from cluster_lock.values import EndCode, EndReason, Origin

pytestmark = pytest.mark.virtual


async def work(term: Term) -> None:
    await term.wait_step_down()


async def until_leading(board: Board, name: str) -> None:
    async with asyncio.timeout(120):
        while not (name in board.locks and board.locks[name].leads):
            await board.changed.wait()


async def test_a_hand_over_is_told_on_both_sides(store: MemoryBackend) -> None:
    """The old leader's board says to whom and why, the new one's from whom, and both timelines have both terms."""
    first, second = Board("a"), Board("b")
    async with session(store, "a", observer=first) as a, session(store, "b", observer=second) as b:
        first.peers, second.peers = SessionPeers(a), SessionPeers(b)
        ea, eb = Election(a), Election(b)
        leading = asyncio.create_task(ea.lead("x", work))
        await until_leading(first, "x")
        waiting = asyncio.create_task(eb.lead("x", work))
        await asyncio.sleep(1)
        second.look_around()
        assert [(term.instance, term.ended) for term in second.locks["x"].history] == [("a", None)]
        ea.stop("SIGTERM")
        await until_leading(second, "x")
        await leading
        (before,) = first.locks["x"].history
        assert (before.ending, before.reason) == ("handed over to b", "stepped down: SIGTERM")
        assert first.locks["x"].role == "stopped"
        assert first.locks["x"].transitions == {("leader", "found free"): 1, ("standby", "stopped"): 1}
        assert first.locks["x"].handovers.count == 1
        seen, ours = second.locks["x"].history
        assert (seen.term, seen.ours, ours.ours, ours.origin) == (before.term, False, True, "handed over")
        assert seen.ended is not None
        assert ours.term > seen.term
        eb.stop()
        await waiting


async def test_each_loss_has_its_word(store: MemoryBackend) -> None:
    """A key that is gone and a store that is silent are counted under different reasons, with their measured times."""
    driver = FaultyDriver(MemoryDriver(store))
    board = Board("a")
    async with session(store, "a", driver=driver, observer=board) as a:
        election = Election(a)
        leading = asyncio.create_task(election.lead("x", work))
        await until_leading(board, "x")
        store.stranger_deletes(key_of("x"))
        await asyncio.sleep(1)
        await until_leading(board, "x")
        driver.down()
        await asyncio.sleep(20)
        driver.up()
        await until_leading(board, "x")
        ended = [reason for to, reason in board.locks["x"].transitions if to == "standby"]
        assert sorted(ended) == ["lost_key_gone", "lost_not_renewed"]
        reasons = [term.reason or "" for term in board.locks["x"].history if term.ended]
        assert "s ago (ttl 15 s)" in reasons[-1]
        assert board.lease.renewals["lost"] == 1
        assert board.lease.renewals["unsure"] > 0
        election.stop()
        await leading


def test_the_timeline_is_bounded() -> None:
    """However often the lock changes hands, only the last terms are kept."""
    with own_time():
        board = standby_board()
        for token in range(3 * REMEMBERED):
            board.term_began(LOCK, token, Origin.FOUND_FREE)
            board.term_ended(LOCK, EndReason("the key of x was deleted", EndCode.KEY_GONE), Ending.LOST)
        history = board.locks[LOCK].history
        assert len(history) == REMEMBERED
        assert history[-1].term == 3 * REMEMBERED - 1
        assert len(board.locks[LOCK].transitions) == 2


def test_times_are_measured() -> None:
    """A hand-over counts from the step-down to the giving away, a take-over, once, from the grant to the first
    getUpdates."""
    with own_time() as pass_time:
        board = leader_board()
        pass_time(0.3)
        board.pollers.tell([poller(polling=False, polling_for=None)])
        board.pollers.tell([poller(polling=True, polling_for=None)])
        board.pollers.tell([poller(polling=True, polling_for=9.0)])
        assert not board.locks[LOCK].takeovers, "it had not begun, or in an earlier term"
        pass_time(0.5)
        board.pollers.tell([poller(polling_for=0.5)])
        board.pollers.tell([poller(polling_for=0.5)])
        taken = board.locks[LOCK].takeovers["handed over"]
        assert (taken.count, round(taken.sum, 3)) == (1, 0.3)
        board.step_down_began(LOCK, "SIGTERM", "web-2")
        pass_time(2.0)
        board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), Ending.HANDED_OVER, "web-2")
        given = board.locks[LOCK].handovers
        assert (given.count, given.sum) == (1, 2.0)


def test_a_killed_worker_leads_no_more() -> None:
    """A worker that could not tell of the end of its term has ended it all the same, for the reason that it is gone."""
    with own_time() as pass_time:
        board = leader_board(worker=True)
        board.worker_changed("gone", reason="the worker ended with signal SIGKILL")
        lock = board.locks[LOCK]
        assert (lock.leads, lock.role) == (False, "stopped")
        assert lock.transitions["standby", "worker_ended"] == 1
        assert (lock.history[-1].ending, lock.history[-1].reason) == (
            "released",
            "the worker ended with signal SIGKILL",
        )
        board.standing_by(LOCK)
        board.term_began(LOCK, 18, Origin.RELEASED)
        pass_time(100)
        board.worker_changed("gone", reason="the worker ended with signal SIGKILL")
        assert lock.history[-1].ending == "lost"


def test_a_poller_may_say_little() -> None:
    """What a worker does not say of its pollers is taken to be nothing."""
    with own_time():
        board = leader_board()
        board.pollers.tell([{"lock": LOCK}])
        (state,) = board.pollers.states()
        assert (state["deaf"], state["handled"], state["last_poll_age"]) == (False, 0, None)


def test_a_new_worker_does_not_set_counters_back() -> None:
    """Counters go on where the worker that crashed had left them."""
    with own_time():
        board = leader_board(worker=True)
        board.pollers.tell([poller(handled=10, errors={"network": 2})])
        board.worker_changed("gone", reason="killed")
        board.worker_changed("ready", 2)
        board.pollers.tell([poller(handled=0)])
        board.pollers.tell([poller(handled=3, errors={"network": 1})])
        assert (42, "handled", 13.0) in list(board.pollers.totals.of("updates"))
        assert (42, "network", 3.0) in list(board.pollers.totals.of("errors"))
