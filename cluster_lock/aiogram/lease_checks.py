"""Where the poller looks at the lease: before each getUpdates, right after its answer, and before each handler. The
fourth look is `http_session`'s, at the moment in which a getUpdates is written."""

from __future__ import annotations

from cluster_lock.election import Term


def may_poll(term: Term) -> bool:
    """Before each getUpdates, the final confirmation among them. A stale one would take the new leader's place, and its
    offset would confirm what nobody handled."""
    return term.is_valid()


def may_dispatch(term: Term) -> bool:
    """Right after the answer. A loop that was blocked past the deadline wakes up with an answer ready, in the same step
    in which its timers find out."""
    return term.is_valid()


def may_start(term: Term) -> bool:
    """Before each handler."""
    return term.is_valid()
