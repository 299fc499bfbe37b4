"""Boards in a known state, and what a poller says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster_lock import clock
from cluster_lock.health import Board
from cluster_lock.values import Origin, Timing

LOCK = "telegram/42"
TIMING = Timing()
TRUSTED = TIMING.ttl - TIMING.margin


@contextmanager
def own_time() -> Iterator[Callable[[float], None]]:
    """The clock stands still in the block, and the function moves it on."""
    now = [1000.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    with clock.replaced(lambda: now[0]):
        yield pass_time


def standby_board(instance: str = "web-1", **options: Any) -> Board:
    """One that has a lease and contends for LOCK."""
    board = Board(instance, backend="etcd", **options)
    board.lease_granted(TIMING, clock.now() + TRUSTED)
    board.standing_by(LOCK)
    return board


def leader_board(instance: str = "web-1", token: int = 17, **options: Any) -> Board:
    """One that leads LOCK."""
    board = standby_board(instance, **options)
    board.term_began(LOCK, token, Origin.HANDED_OVER)
    return board


def renew(board: Board, took: float = 0.002) -> None:
    board.lease_renewed(clock.now() + TRUSTED, took)


def poller(**changes: Any) -> dict[str, Any]:
    """A healthy poller of the bot 42, as the worker tells it."""
    state: dict[str, Any] = {
        "bot_id": 42,
        "lock": LOCK,
        "polling": True,
        "polling_for": 0.0,
        "waiting": None,
        "last_poll_age": 1.0,
        "last_success_age": 1.0,
        "deaf": False,
        "failing": False,
        "conflicts_60s": 0,
        "storm": False,
        "last_error": None,
        "pending": 0,
        "unconfirmed": 0,
        "window_full": False,
        "window_full_for": None,
        "early_running": 0,
        "handled": 0,
        "failed": 0,
        "timed_out": 0,
        "redelivered": 0,
        "confirmed_early": 0,
        "given_up": 0,
        "errors": {},
    }
    assert changes.keys() <= state.keys()
    return {**state, **changes}
