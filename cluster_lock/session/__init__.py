"""Any number of locks under one lease.

A Session owns the lease. A Lock waits for its turn; while it is held there is a Hold. For whoever needs a lock without
an election, for `election`, for `admin`, and for the keeper.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "Hold": "hold",
    "Lock": "lock",
    "Session": "session",
    "open_session": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
