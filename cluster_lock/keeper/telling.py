"""What happens to the terms in a worker, told to the keeper's observer as it happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster_lock.observer import Ending, Observer
from cluster_lock.values import EndReason, Origin

from .link import PipeLink

TERMS = ("standing_by", "cooling_down", "term_began", "step_down_began", "term_ended", "stopped")
"""What concerns terms. The lease is the keeper's own affair."""


class Telling(Observer):
    """In the worker: sends it."""

    def __init__(self, link: PipeLink) -> None:
        self._link = link
        for name in set(TERMS) - {"term_ended"}:
            setattr(self, name, self._teller(link, name))

    def term_ended(self, name: str, reason: EndReason, how: Ending, heir: str | None = None) -> None:
        self._link.tell("observed", what="term_ended", arguments=(name, reason.to_json(), how, heir))

    @staticmethod
    def _teller(link: PipeLink, name: str) -> Any:
        return lambda *arguments: link.tell("observed", what=name, arguments=arguments)


class Both(Observer):
    """Tells two."""

    def __init__(self, *observers: Observer) -> None:
        for name in TERMS:
            setattr(self, name, self._teller(observers, name))

    @staticmethod
    def _teller(observers: Sequence[Observer], name: str) -> Any:
        def tell(*arguments: Any) -> None:
            for observer in observers:
                getattr(observer, name)(*arguments)

        return tell


def told(observer: Observer, what: str, arguments: Sequence[Any]) -> None:
    """In the keeper: what came."""
    if what == "term_began":
        name, token, origin = arguments
        observer.term_began(name, token, Origin(origin))
    elif what == "term_ended":
        name, reason, how, *heir = arguments
        observer.term_ended(name, EndReason.from_json(reason), Ending(how), *heir)
    elif what in TERMS:
        getattr(observer, what)(*arguments)
