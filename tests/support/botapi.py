"""The Telegram simulator without sockets, in stepped time."""

from __future__ import annotations

from typing import Any

from cluster_lock.testing.telegram import BotKey, ManualClock, Poll, TelegramSimulator
from cluster_lock.testing.telegram.query import Query

TOKEN = "42:simulator-token-not-real"
TEXT_OTHER = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
TEXT_WEBHOOK = (
    "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)


class Desk:
    """Asks an unstarted simulator directly; its seconds pass when `wait` says so."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.simulator = TelegramSimulator(clock=self.clock, seed=1, **options)

    def ask(self, method: str, *, client: str = "a", token: str = TOKEN, **arguments: object) -> Query:
        text = {name: str(value) for name, value in arguments.items()}
        key = BotKey.of(token)
        query = Query(key, token, method.lower(), text, client)
        if query.method == "getupdates":
            query.poll = Poll(key, client, self.clock.now())
        self.simulator.answer(query)
        return query

    def poll(self, *, client: str = "a", token: str = TOKEN, **arguments: object) -> Query:
        return self.ask("getUpdates", client=client, token=token, **arguments)

    def push(self, count: int = 1) -> list[int]:
        return self.simulator.push_many(TOKEN, count)

    def wait(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @property
    def pending(self) -> int:
        return int(result(self.ask("getWebhookInfo"))["pending_update_count"])


def result(query: Query) -> Any:
    """The result of a query that must have been answered well."""
    assert query.answer is not None, "not answered yet"
    body = query.answer.json()
    assert body["ok"], body
    return body["result"]


def ids(query: Query) -> list[int]:
    return [update["update_id"] for update in result(query)]


def refusal(query: Query) -> tuple[int, str]:
    """Status and description of a query that must have been refused."""
    assert query.answer is not None, "not answered yet"
    body = query.answer.json()
    assert body["ok"] is False, body
    assert body["error_code"] == query.answer.status, body
    return query.answer.status, body["description"]
