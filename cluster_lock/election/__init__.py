"""Standing by, leading, and handing over.

A Leadership gives terms to a body of work. Election is the one that takes its locks from a session, or from a keeper
over a pipe. For `aiogram`, for `keeper`, and for programs that lead something else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .election import Election
    from .leadership import Leadership, Role, Term

__all__ = [
    "Election",
    "Leadership",
    "Role",
    "Term",
]

_HOMES = {
    "Election": "election",
    "Leadership": "leadership",
    "Role": "leadership",
    "Term": "leadership",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
