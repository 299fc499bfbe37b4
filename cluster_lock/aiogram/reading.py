"""What Telegram sent, as aiogram's updates."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiogram import Bot
from aiogram.types import Update
from pydantic import TypeAdapter, ValidationError

from .http_session import Raw

_UPDATES: TypeAdapter[list[Update]] = TypeAdapter(list[Update])
LONGEST_ANSWER = 4 * 2**20
"""Bytes after which Telegram cuts an answer (Client.cpp:16301)."""
LONGEST_UPDATE = 2**19


class UpdateUnreadable(ValueError):
    """What `on_failed` is told of an update that this aiogram cannot read. `raw`: what Telegram sent. (The update that
    comes with it knows nothing but its number.)"""

    def __init__(self, text: str, raw: Raw) -> None:
        super().__init__(text)
        self.raw = raw


def read(raw: Sequence[Raw], bot: Bot) -> list[Update | UpdateUnreadable]:
    """One that cannot be read hides none of those beside it."""
    try:
        return list(_UPDATES.validate_python(raw, context={"bot": bot}))
    except ValidationError:
        return [_read_one(one, bot) for one in raw]


def _read_one(raw: Raw, bot: Bot) -> Update | UpdateUnreadable:
    try:
        return Update.model_validate(raw, context={"bot": bot})
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        return UpdateUnreadable(f"this aiogram cannot read it: {why}", raw)


class Cut:
    """Tells whether answers were cut."""

    def __init__(self) -> None:
        self._seen: tuple[int, int, int] | None = None
        self._is_cut = False

    def look_at(self, answer: Sequence[Raw]) -> bool:
        """Is it as long as Telegram lets an answer be? Measured once for what is repeated."""
        seen = (answer[0]["update_id"], answer[-1]["update_id"], len(answer)) if answer else None
        if seen != self._seen:
            self._seen = seen
            length = len(json.dumps(answer, separators=(",", ":")))
            self._is_cut = length > LONGEST_ANSWER - LONGEST_UPDATE  # the next one would have been too much
        return self._is_cut
