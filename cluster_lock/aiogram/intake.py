"""Makes jobs of what Telegram delivered: what each waits for, and what is not handled at all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from aiogram import Bot, Dispatcher
from aiogram.types import Update

from .crashes import GIVEN_UP, SUSPECTED, CrashedTooOften, CrashNotes
from .http_session import Raw
from .job import QueuedUpdate
from .lines import album, conversation, dialogue, is_urgent
from .reading import UpdateUnreadable
from .rules import Rules
from .window import Delivered, Window

SUSPECTS = "suspects"
"""The line of what may end the process: one update at a time, so that there is no doubt which of them does."""


class Intake:
    """For one term."""

    def __init__(self, dispatcher: Dispatcher, bot: Bot, rules: Rules, window: Window, notes: CrashNotes) -> None:
        self._dispatcher, self._bot, self._rules, self._window, self._notes = dispatcher, bot, rules, window, notes
        self._is_limited = rules.limited or rules.sequential
        """The caller has limited the concurrency: then all wait alike, as with aiogram."""
        self._suspects: set[Hashable] = set()
        """Updates that were being handled in several crashes, or where there is an order their lines: they are one line
        for this term."""

    def jobs(
        self, new: Sequence[Delivered], raw: Sequence[Raw], updates: Sequence[Update | UpdateUnreadable]
    ) -> list[QueuedUpdate]:
        """One for each that is new: `raw` is what Telegram sent, `updates` what aiogram makes of it."""
        lines = self._lines(updates, raw)
        jobs = []
        for delivered, update, sent, line in zip(new, updates, raw, lines, strict=True):
            if (of_album := album(sent)) is not None:
                self._window.join(delivered, of_album)
            refused: Exception | None = None
            if isinstance(update, UpdateUnreadable):
                refused, update = update, Update(update_id=delivered.update_id)
            elif crashes := self._too_often(delivered.update_id):
                refused = CrashedTooOften(f"it was being handled in {crashes} crashes of this instance")
            urgent = line is None and not self._is_limited and is_urgent(sent)
            jobs.append(QueuedUpdate(delivered, update, line, urgent=urgent, refused=refused))
        return jobs

    def _lines(self, updates: Sequence[Update | UpdateUnreadable], raw: Sequence[Raw]) -> Sequence[Hashable]:
        """What each of these is in order with; None: with nothing."""
        if self._rules.sequential or (self._rules.order == "none" and not self._notes.crashes):
            return [None] * len(raw)
        ids = [sent["update_id"] for sent in raw]
        lines = [self._line(update, sent) for update, sent in zip(updates, raw, strict=True)]
        for update_id, line in zip(ids, lines, strict=True):
            if self._notes.crashes.get(update_id, 0) >= SUSPECTED:
                self._suspects.add(update_id if line is None else line)
        return [
            SUSPECTS if (update_id if line is None else line) in self._suspects else line
            for update_id, line in zip(ids, lines, strict=True)
        ]

    def _line(self, update: Update | UpdateUnreadable, raw: Raw) -> Hashable:
        if self._rules.order == "none" or is_urgent(raw):
            return None
        if self._rules.order == "member" and isinstance(update, Update):
            return dialogue(self._dispatcher, self._bot, update)
        return "chat", conversation(raw)

    def _too_often(self, update_id: int) -> int:
        crashes = self._notes.crashes.get(update_id, 0)
        return crashes if crashes >= GIVEN_UP else 0
