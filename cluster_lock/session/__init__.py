"""Any number of locks under one lease.

A Session owns the lease. A Lock waits for its turn; while it is held there is a Hold. For a program that needs a lock
without an election, for `election`, for `admin`, and for the keeper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .hold import Hold
    from .lock import Lock
    from .opening import open_session
    from .session import Session

__all__ = [
    "Hold",
    "Lock",
    "Session",
    "open_session",
]

__getattr__ = lazily(
    __name__,
    {
        "Hold": "hold",
        "Lock": "lock",
        "Session": "session",
        "open_session": "opening",
    },
)
