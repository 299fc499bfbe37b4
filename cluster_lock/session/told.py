"""What people are told while somebody waits for a lock."""

from __future__ import annotations

import logging

from cluster_lock import clock
from cluster_lock.errors import BackendUnavailable, ForeignValue
from cluster_lock.values import Entry

from .context import Context
from .hold import describe

log = logging.getLogger("cluster_lock.lock")


class WaitReport:
    """About one wait: each thing once, and what keeps a free lock from us also to the observer."""

    def __init__(self, context: Context, name: str) -> None:
        self._context, self._name = context, name
        self._holder = self._trouble = ""
        self._failing_since: float | None = None

    def held(self, entry: Entry) -> None:
        self.over()
        if (whom := describe(entry)) != self._holder:
            log.info("%s: waiting, held by %s", self._name, whom)
            self._holder = whom

    def foreign(self, error: ForeignValue) -> None:
        if self._blocked(str(error)):
            log.error("nobody can lead %s until a person acts: %s", self._name, error)

    def unanswered(self, error: BackendUnavailable) -> None:
        """Of a backend that is away the lease tells; one that renews and takes no writes is told of here."""
        log.debug("%s: no answer to the acquire, trying again: %s", self._name, error)
        if self._failing_since is None:
            self._failing_since = clock.now()
        if clock.now() - self._failing_since > self._context.timing.renew_every and not self._trouble:
            self._blocked(str(error))
            log.warning("%s: nobody holds it, and it cannot be taken, trying on: %s", self._name, error)

    def over(self) -> None:
        """Nothing keeps it from us but who holds it, if anybody does."""
        self._failing_since = None
        if self._trouble:
            self._trouble = ""
            self._context.observer.cannot_take(self._name, None)

    def _blocked(self, why: str) -> bool:
        """True if that is news."""
        if why == self._trouble:
            return False
        self._trouble = why
        self._context.observer.cannot_take(self._name, why)
        return True
