"""What a health page, or any other onlooker, is told about leases and terms.

An observer is told and never asked: it decides nothing, and the library runs the same without one.
"""

from __future__ import annotations

from enum import StrEnum

from .values import EndReason, Origin, Timing


class Ending(StrEnum):
    """What became of a lock at the end of a term."""

    HANDED_OVER = "handed over"
    """An heir has it."""
    RELEASED = "released"
    """The backend has said that it is free."""
    UNCONFIRMED = "released, not confirmed"
    """The backend has not said that it is free. It is released again with each renewal, and expires if that fails."""
    LOST = "lost"
    """It was not ours any more before the work had ended."""


class Observer:
    """Does nothing: override the methods that you want. They are called on the thread of the event loop, in the middle
    of the event, so a method returns at once and never raises. Moments are `clock.now()`; reasons are sentences for
    people; the reason of an end has a code, too.
    """

    def lease_granted(self, timing: Timing, deadline: float) -> None:
        """There is a new lease, good until `deadline`; `timing.ttl` is what the backend promised, in seconds."""

    def lease_renewed(self, deadline: float, took: float) -> None:
        """It lasts until `deadline`; the renewal took `took` seconds."""

    def lease_unsure(self, reason: str) -> None:
        """A renewal, or the request for a lease, was not answered or refused; it is tried again."""

    def lease_lost(self, reason: str) -> None:
        """It is not to be trusted any more. Each term under it ends by itself."""

    def standing_by(self, name: str) -> None:
        """We contend for the lock `name`."""

    def cannot_take(self, name: str, reason: str | None) -> None:
        """Nobody holds the lock `name` and we cannot take it all the same, for this reason; None: that is over."""

    def cooling_down(self, name: str, seconds: float, reason: str) -> None:
        """We do not contend for `name` for so many seconds."""

    def term_began(self, name: str, fencing_token: int, origin: Origin) -> None:
        """We lead `name`."""

    def step_down_began(self, name: str, reason: str, heir: str | None) -> None:
        """The term of `name` was asked to end; its work is finishing. `heir`: who will get the lock."""

    def term_ended(self, name: str, reason: EndReason, how: Ending, heir: str | None = None) -> None:
        """The work has ended and the lock is not ours any more. `heir`: who has it, if it was handed over."""

    def stopped(self, name: str) -> None:
        """Nobody here stands by for `name` any more."""

    def stop(self, reason: str) -> None:
        """All of it is about to end, in good order, and for good."""


SILENT = Observer()
