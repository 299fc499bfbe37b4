"""Counters of the pollers, over all workers that this process has seen: a new worker counts from 0, a counter does
not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cluster_lock.telegram.poller_state import COUNTED

KINDS = "conflict", "flood", "network", "server", "token", "webhook"
"""Of failed getUpdates, as `cluster_lock.aiogram.classify` has them. Each is counted from the beginning."""


class Totals:
    """By bot and by what is counted: `updates` by result, `errors` by kind of failure."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, str, str], float] = {}
        self._last: dict[tuple[int, str, str], float] = {}

    def take(self, pollers: Iterable[Mapping[str, Any]]) -> None:
        """The newest states. What counts less than it did belongs to a new worker."""
        for poller in pollers:
            for key, value in _counters(poller):
                last = self._last.get(key, 0.0)
                if value < last:
                    self._before[key] = self._before.get(key, 0.0) + last
                self._last[key] = value

    def of(self, family: str) -> Iterator[tuple[int, str, float]]:
        """Bot, label and total of `updates` or `errors`."""
        for (bot, kind, label), value in sorted(self._last.items()):
            if kind == family:
                yield bot, label, value + self._before.get((bot, kind, label), 0.0)


def _counters(poller: Mapping[str, Any]) -> Iterator[tuple[tuple[int, str, str], float]]:
    bot = int(poller.get("bot_id") or 0)
    for name in COUNTED:
        yield (bot, "updates", name), float(poller.get(name) or 0)
    errors = dict.fromkeys(KINDS, 0) | dict(poller.get("errors") or {})
    for kind, count in errors.items():
        yield (bot, "errors", str(kind)), float(count)
