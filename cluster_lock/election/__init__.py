"""Standing by, leading, and handing over.

A Leadership gives terms to a body of work. Election is the one that takes its locks from a session, or from a keeper
over a pipe. For `aiogram`, for `keeper`, and for programs that lead something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .election import Election
    from .leadership import Leadership, Role, Term

__all__ = [
    "Election",
    "Leadership",
    "Role",
    "Term",
]

__getattr__ = lazily(
    __name__,
    {
        "Election": "election",
        "Leadership": "leadership",
        "Role": "leadership",
        "Term": "leadership",
    },
)
