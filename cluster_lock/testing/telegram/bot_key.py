"""Which queue a request or a command is about."""

from __future__ import annotations

from typing import NamedTuple

BotRef = str | int
"""A bot as people name it: its id (42), "42/test" for the test environment, or a whole token."""


class BotKey(NamedTuple):
    """The identity of an update queue: the bot's id and the environment, never the whole token.

    telegram-bot-api does the same (ClientManager.cpp:313), so a token that was replaced keeps its queue.
    """

    bot_id: int
    is_test: bool = False

    def __str__(self) -> str:
        return f"{self.bot_id}/test" if self.is_test else str(self.bot_id)

    @classmethod
    def of(cls, ref: BotRef | BotKey) -> BotKey:
        """The key that `ref` names; ValueError (without the reference: it may hold a token) if it names none."""
        if isinstance(ref, BotKey):
            return ref
        if isinstance(ref, int):
            return cls(ref)
        name, slash, environment = ref.partition("/")
        digits = name.partition(":")[0]
        if not digits.isdecimal() or (slash and environment != "test"):
            raise ValueError("a bot is named by its id, by 'ID/test' or by its token")
        return cls(int(digits), bool(slash))


def token_of(ref: BotRef | BotKey) -> str | None:
    """The token in `ref`, or None when it names the bot by its id only."""
    if isinstance(ref, str) and ":" in ref:
        return ref.partition("/")[0]
    return None
