"""Boards in a known state, and what a poller says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from cluster_lock import clock
from cluster_lock.health import Board
from cluster_lock.telegram.poller_state import PollerState
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
    healthy = PollerState(bot_id=42, lock=LOCK, polling=True, polling_for=0.0, last_poll_age=1.0, last_success_age=1.0)
    return asdict(replace(healthy, **changes))
