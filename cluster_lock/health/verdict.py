"""Whether this process works, whether it could lead, and in one word how it is.

Ready asks "do I lead without being able to renew?", never "do I lead?": a standby that could take over is ready. Alive
asks only what a restart would mend: a backend that is away is not mended by restarting who waits for it.
"""

from __future__ import annotations

from cluster_lock import clock

from .board import Board

STALLS = 3
"""A worker that gives no sign of life is killed after one stall_limit. If it still stands after three, the one that
should have killed it does not work."""
DEAF = "no getUpdates has ended for too long"
FAILING = "no getUpdates has succeeded for too long"
FULL_FOR = 60.0
"""Seconds for which a window may be full: the bot hears nothing new in that time."""
STARTS_FOR = 60.0
"""Seconds for which a process that was never ready is starting; then something is wrong."""


def why_not_alive(board: Board) -> list[str]:
    """What a restart would mend, one sentence each; empty: it lives."""
    reasons = []
    silent = _silent_for(board)
    if silent > STALLS * board.stall_limit:
        reasons.append(f"the worker has given no sign of life for {silent:.0f} s and was not ended")
    reasons += [f"{state['lock']}: {DEAF}" for state in board.pollers.states() if state["deaf"]]
    return reasons


def why_not_ready(board: Board) -> list[str]:
    """What keeps this process from leading, or from taking over; empty: it is ready."""
    reasons = [*_about_process(board), *_about_lease(board), *_about_locks(board)]
    for state in board.pollers.states():
        if state["deaf"]:
            reasons.append(f"{state['lock']}: {DEAF}")
        elif state["failing"]:
            said = f": {state['last_error']}" if state["last_error"] else ""
            reasons.append(f"{state['lock']}: {FAILING}{said}")
        if (full_for := state["window_full_for"]) is not None and full_for > FULL_FOR:
            reasons.append(
                f"{state['lock']}: Telegram has shown nothing new for {full_for:.0f} s: the window is full of updates"
                " that wait for a handler"
            )
        lock = board.locks.get(str(state["lock"]))
        if state["storm"] and (lock is None or lock.leads):  # a standby remembers that of its last term
            reasons.append(f"{state['lock']}: somebody polls this bot outside of the lock")
    if not reasons:
        board.was_ready = True
    return reasons


def status(board: Board) -> str:
    """starting, running, failing, stuck or stopping."""
    ready = not why_not_ready(board)
    if why_not_alive(board):
        return "stuck"
    if board.stopping is not None:
        return "stopping"
    if ready:
        return "running"
    return "failing" if board.was_ready or board.uptime() > STARTS_FOR else "starting"


def _about_process(board: Board) -> list[str]:
    reasons = []
    if board.stopping is not None:
        reasons.append(f"it is stopping: {board.stopping}")
    if board.worker is not None and board.worker.state != "ready":
        reasons.append("the worker is starting" if board.worker.state == "starting" else "the worker has ended")
    if (silent := _silent_for(board)) > board.stall_limit:
        reasons.append(f"the worker has given no sign of life for {silent:.0f} s")
    return reasons


def _about_lease(board: Board) -> list[str]:
    # With its moment: what it says of seconds was true then.
    lease = board.lease
    trouble = f": {lease.trouble} (at {(lease.trouble_at or '')[11:19]} UTC)" if lease.trouble else ""
    timing, left = lease.timing, lease.remaining()
    if timing is None or left <= 0:
        return [f"there is no lease{trouble}"]
    # Due after a third of the ttl; one that has not come when it had the time of a whole request is missing.
    overdue = timing.ttl - timing.margin - timing.renew_every - timing.request
    return [f"the lease cannot be renewed, {left:.1f} s are left{trouble}"] if left < overdue else []


def _about_locks(board: Board) -> list[str]:
    reasons = []
    if not board.locks:
        reasons.append("no lock is contended for yet")
    for lock in board.locks.values():
        if lock.away_until is not None and (left := lock.away_until[0] - clock.now()) > 0:
            reasons.append(f"{lock.name}: not contending for {left:.0f} s: {lock.away_until[1]}")
        elif lock.blocked is not None:
            reasons.append(f"nobody holds it, and it cannot be taken: {lock.blocked}")
        elif lock.role == "stopped":
            reasons.append(f"{lock.name}: not contended for")
    return reasons


def _silent_for(board: Board) -> float:
    """Seconds since the last sign of life of a worker that should give some."""
    return board.worker.silent_for() if board.worker is not None else 0.0
