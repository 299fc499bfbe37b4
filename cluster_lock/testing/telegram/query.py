"""One request to the Bot API: who asks what, and the one answer that it gets, perhaps much later."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .answers import Answer
from .bot_key import BotKey
from .history import Poll

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)
_DIGITS = re.compile(r"\s*(-?\d+)")


@dataclass(eq=False, slots=True)
class Query:
    """A request in hand. It is answered at most once; a second answer is for nobody."""

    bot: BotKey
    token: str = field(repr=False)
    method: str
    arguments: Mapping[str, str]
    client: str
    term: int | None = None
    poll: Poll | None = None
    """The oracle's record when this is a getUpdates."""
    answer: Answer | None = None
    on_answer: Callable[[Answer], None] | None = field(default=None, repr=False)

    def argument(self, name: str) -> str:
        return self.arguments.get(name, "")

    def integer(self, name: str, default: int, low: int = INT32_MIN, high: int = INT32_MAX) -> int:
        """As Client.cpp:12360 reads it: no digits are 0, digits before other text count, 32 bits, then the bounds."""
        text = self.argument(name)
        if not text:
            return default
        found = _DIGITS.match(text)
        value = int(found[1]) if found else 0
        wrapped = (value - INT32_MIN) % 2**32 + INT32_MIN
        return min(max(wrapped, low), high)

    def flag(self, name: str) -> bool:
        return self.argument(name).lower() in {"true", "yes", "1"}

    def reply(self, answer: Answer) -> None:
        if self.answer is not None:
            return
        self.answer = answer
        if self.on_answer is not None:
            self.on_answer(answer)
