"""What is shown: the short answer of /health, and the whole of it for the page. Plain values, no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster_lock import clock

from .board import Board
from .terms import LockFacts
from .verdict import status, why_not_alive, why_not_ready

SHOWN_STANDBYS = 50


def health(board: Board) -> dict[str, Any]:
    """The fields of /health. Several locks or bots: the lock that is led here, the worst poll, the sum of updates."""
    lock, pollers = board.main_lock(), board.pollers.states()
    leader = _leader(board, lock) if lock is not None else None
    identity = board.identity()
    return {
        "status": status(board),
        "pid": identity["pid"],
        "uptime_seconds": round(board.uptime(), 3),
        "version": identity["version"],
        "role": lock.role if lock is not None else "stopped",
        "leader": leader["instance"] if leader is not None else None,
        "term": leader["term"] if leader is not None else None,
        "lease_remaining": round(board.lease.remaining(), 3),
        "last_poll_age": _rounded(
            max((state["last_poll_age"] for state in pollers if state["last_poll_age"] is not None), default=None)
        ),
        "conflicts_60s": sum(state["conflicts_60s"] for state in pollers),
        "last_error": next((state["last_error"] for state in pollers if state["last_error"]), None) or board.error,
        "pending_updates": sum(state["pending"] for state in pollers),
        "window_full": any(state["window_full"] for state in pollers),
        "confirmed_early": sum(state["confirmed_early"] for state in pollers),
        "early_running": sum(state["early_running"] for state in pollers),
    }


def document(board: Board) -> dict[str, Any]:
    """Everything, for the page."""
    timing, worker = board.lease.timing, board.worker
    return {
        **health(board),
        **board.identity(),
        "backend": board.backend,
        "time": clock.utc_text(),
        "live": not why_not_alive(board),
        "error": {"text": board.error, "at": board.error_at} if board.error is not None else None,
        "reasons": list(dict.fromkeys([*why_not_alive(board), *why_not_ready(board)])),
        "lease": {
            "ttl": timing.ttl if timing is not None else None,
            "trusted": timing.ttl - timing.margin if timing is not None else None,
            "remaining": round(board.lease.remaining(), 3),
            "trouble": board.lease.trouble,
            "trouble_at": board.lease.trouble_at if board.lease.trouble else None,
        },
        "locks": [_lock(board, lock) for lock in board.locks.values()],
        "pollers": [_poller(state) for state in board.pollers.states()],
        "worker": {"state": worker.state, "pid": worker.pid, "starts": worker.starts} if worker is not None else None,
    }


def _lock(board: Board, lock: LockFacts) -> dict[str, Any]:
    leader = _leader(board, lock)
    # What contenders said may be some seconds old: who leads does not stand by.
    standbys = [dict(each) for each in board.peers.standbys(lock.name) if leader is None or not _same(each, leader)]
    return {
        "name": lock.name,
        "role": lock.role,
        "stepping_down": lock.stepping_down,
        "leader": leader,
        "standbys": standbys[:SHOWN_STANDBYS],
        "more_standbys": max(0, len(standbys) - SHOWN_STANDBYS),
        "history": [entry.shown() for entry in reversed(lock.history)],
    }


def _leader(board: Board, lock: LockFacts) -> dict[str, Any] | None:
    if lock.term is not None:
        identity = board.identity()
        mine = {name: identity[name] for name in ("instance", "host", "pid")}
        return {**mine, "since": lock.term.began, "term": lock.term.term, "ours": True}
    leader = board.peers.leader(lock.name)
    if leader is None or _same(leader, board.identity()):  # what is left of a term of ours that has ended
        return None
    return {name: leader.get(name) for name in ("instance", "host", "pid", "since", "term")} | {"ours": False}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Is it the same process?"""
    return all(one.get(name) == other.get(name) for name in ("instance", "host", "pid"))


def _poller(state: dict[str, Any]) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in state.items()}


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None else None
