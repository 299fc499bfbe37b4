"""Injected faults: what happens to the next requests instead of, or after, what the server would do."""

from __future__ import annotations

import html
from dataclasses import dataclass, field, replace
from typing import Literal

from . import answers
from .answers import Answer
from .bot_key import BotKey, BotRef
from .query import Query

Action = Literal["answer", "drop", "black_hole", "delay"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble for the next `times` requests that match.

    `action`: "answer" with `status` and `body` (JSON or any text), `html` or `description`; "drop" the connection;
    "black_hole": never answer; "delay": only be slow.
    `after_processing`: the server does its work first, then the answer is replaced, lost or late. A getUpdates whose
    connection is dropped after processing has acknowledged what it acknowledges.
    `delay`: seconds of the simulator's clock, before the work or, `after_processing`, before the answer.
    `retry_after`: seconds; makes a 429 as Telegram makes it.
    `times`: how many requests it hits; None: until it is cleared.
    `method`: of the Bot API, None for every one. `client`, `bot`: only those.
    """

    action: Action = "answer"
    status: int = 502
    description: str | None = None
    body: str | None = None
    html: str | None = None
    retry_after: int | None = None
    delay: float = 0.0
    after_processing: bool = False
    times: int | None = 1
    method: str | None = "getUpdates"
    client: str | None = None
    bot: BotRef | None = None

    def __post_init__(self) -> None:
        if self.action not in ("answer", "drop", "black_hole", "delay"):
            raise ValueError(f"no such action: {self.action!r}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is {self.times}: a fault hits at least one request")
        if self.bot is not None:
            BotKey.of(self.bot)  # refuses now what names no bot

    def hits(self, query: Query) -> bool:
        return (
            (self.method is None or self.method.lower() == query.method)
            and self.client in (None, query.client)
            and (self.bot is None or BotKey.of(self.bot) == query.bot)
        )

    def answer(self) -> Answer:
        """What "answer" says. Without anything given it is a proxy's 502 page."""
        if self.retry_after is not None:
            return answers.too_many_requests(self.retry_after)
        if self.body is not None:
            return Answer(self.status, self.body)
        if self.description is not None:
            return answers.error(self.status, self.description)
        return answers.html(self.status, self.html or _proxy_page(self.status))


@dataclass(slots=True)
class Faults:
    """The faults that are still to come, in the order in which they were injected."""

    waiting: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self.waiting.append(fault)

    def clear(self) -> None:
        self.waiting.clear()

    def take(self, query: Query) -> Fault | None:
        """The first fault that hits `query`, counted down."""
        for index, fault in enumerate(self.waiting):
            if fault.hits(query):
                if fault.times == 1:
                    del self.waiting[index]
                elif fault.times is not None:
                    self.waiting[index] = replace(fault, times=fault.times - 1)
                return fault
        return None


def _proxy_page(status: int) -> str:
    reason = html.escape({502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}.get(status, "Error"))
    return (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
