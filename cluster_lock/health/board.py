"""The one board of a process, on which those who act write, and from which the pages are read."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from cluster_lock import clock
from cluster_lock.host.masking import masked
from cluster_lock.observer import Ending, Observer
from cluster_lock.values import EndCode, EndReason, Origin, Timing
from cluster_lock.version import __version__

from .lease_facts import LeaseFacts
from .poller_facts import PollerFacts
from .terms import LockFacts
from .worker_facts import WorkerFacts, WorkerState


class Peers(Protocol):
    """Who else is there, and by what we know each other. All answer at once, from memory."""

    def leader(self, name: str) -> Mapping[str, Any] | None:
        """Who holds the lock `name`: instance, host, pid, since, term, health, handed_over_by."""
        ...

    def standbys(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Who waits for it: instance, host, since, health."""
        ...

    def certificates(self) -> Mapping[str, float]:
        """When the certificates that we show and trust end, by file, in seconds since 1970."""
        ...


class NoPeers:
    def leader(self, name: str) -> Mapping[str, Any] | None:
        return None

    def standbys(self, name: str) -> Sequence[Mapping[str, Any]]:
        return ()

    def certificates(self) -> Mapping[str, float]:
        return {}


class Board(Observer):
    """What is known in this process. Hand it to the session (`observer=`), which tells the election's too.

    `instance`: our name among the contenders. `worker`: the work is done by another process, whose signs of life count.
    `backend`: its name, for the page. `stall_limit`: seconds without a sign of life after which a worker is stalled.
    `secrets`: texts that are blotted out of whatever is shown.
    """

    def __init__(
        self,
        instance: str,
        *,
        worker: bool = False,
        backend: str | None = None,
        stall_limit: float = Timing().stall_limit,
        secrets: Iterable[str] = (),
    ) -> None:
        self.instance = instance
        self.backend = backend
        self.host = socket.gethostname()
        self.stall_limit = stall_limit
        self.began = clock.now()
        self.was_ready = False
        self.stopping: str | None = None
        self.peers: Peers = NoPeers()
        self.changed = asyncio.Event()
        """Set, and replaced, at each transition."""

        self.lease = LeaseFacts()
        self.worker = WorkerFacts() if worker else None
        """None: the work is done in this process."""
        self.pollers = PollerFacts(self.shown, self._polls)
        self.locks: dict[str, LockFacts] = {}
        self.error: str | None = None
        self.error_at: str | None = None
        self._secrets = tuple(secrets)

    # The lease

    def lease_granted(self, timing: Timing, deadline: float) -> None:
        self.lease.grant(timing, deadline)
        self._change()

    def lease_renewed(self, deadline: float, took: float) -> None:
        if self.lease.renew(deadline, took):
            self._change()

    def lease_unsure(self, reason: str) -> None:
        if self.lease.doubt(self._failed(reason)):
            self._change()

    def lease_lost(self, reason: str) -> None:
        self.lease.lose(self._failed(reason))
        self._change()

    # The locks

    def standing_by(self, name: str) -> None:
        self._lock(name).stand_by()
        self._change()

    def cannot_take(self, name: str, reason: str | None) -> None:
        self._lock(name).blocked = self._failed(f"{name}: {reason}") if reason is not None else None
        self._change()

    def cooling_down(self, name: str, seconds: float, reason: str) -> None:
        self._lock(name).away_until = clock.now() + seconds, self.shown(reason)
        self._change()

    def term_began(self, name: str, fencing_token: int, origin: Origin) -> None:
        self._lock(name).begin(fencing_token, origin.value)
        self._change()

    def work_began(self, name: str) -> None:
        """Somebody works under the term: told for a command; pollers tell it by themselves."""
        self._lock(name).work_began(clock.now())

    def step_down_began(self, name: str, reason: str, heir: str | None) -> None:
        self._lock(name).step_down(self.shown(reason))
        self._change()

    def term_ended(self, name: str, reason: EndReason, how: Ending, heir: str | None = None) -> None:
        if how is Ending.LOST:
            self._failed(f"{name}: {reason}")
        self._lock(name).end(how, self.shown(reason), reason.code, heir)
        self._change()

    def stopped(self, name: str) -> None:
        self._lock(name).stand_by("stopped")
        self._change()

    def forget(self, name: str) -> None:
        """Nobody contends for it here any more, and that is as it should be."""
        self.locks.pop(name, None)
        self._change()

    def stop(self, reason: str) -> None:
        self.stopping = self.stopping or self.shown(reason)
        self._change()

    def _lock(self, name: str) -> LockFacts:
        return self.locks.setdefault(name, LockFacts(name, self.instance))

    # The worker and its pollers

    def worker_changed(self, state: WorkerState, pid: int | None = None, reason: str | None = None) -> None:
        """The worker process has begun (`starting`), may work (`ready`), or has ended (`gone`, and why)."""
        if self.worker is None:
            raise ValueError("the work is done in this process")
        self.worker.change(state, pid)
        if state == "gone":
            self.pollers.forget()
            self._end_all(reason or "the worker has ended")
        self._change()

    def worker_alive(self) -> None:
        """A sign of life of the worker's loop."""
        if self.worker is not None:
            self.worker.hear()

    def _end_all(self, reason: str) -> None:
        """Whatever it did not live to tell: who owns the session gives its locks away."""
        said = self._failed(reason)
        for lock in self.locks.values():
            if lock.leads:
                how = Ending.RELEASED if self.lease.remaining() else Ending.LOST
                lock.end(how, said, EndCode.WORKER_ENDED)
            lock.stand_by("stopped")

    def _polls(self, name: str, since: float) -> None:
        if (lock := self.locks.get(name)) is not None:
            lock.work_began(since)

    # Reading

    def look_around(self) -> None:
        """Take in who leads the locks that we do not, and what pollers of this process do: cheap, from memory, to be
        called every second."""
        self.pollers.look()
        news = [lock.see(self.peers.leader(lock.name)) for lock in self.locks.values()]
        if any(news):
            self._change()

    def main_lock(self) -> LockFacts | None:
        """The lock that a page about one lock is about: one that we lead, else the first."""
        leading = (lock for lock in self.locks.values() if lock.leads)
        return next(leading, None) or next(iter(self.locks.values()), None)

    def uptime(self) -> float:
        return clock.now() - self.began

    def shown(self, text: str) -> str:
        """`text` without a secret, on one line."""
        return " ".join(masked(text, self._secrets).split())[:500]

    def _failed(self, reason: str) -> str:
        self.error, self.error_at = self.shown(reason), clock.utc_text()
        return self.error

    def identity(self) -> dict[str, Any]:
        return {"instance": self.instance, "host": self.host, "pid": os.getpid(), "version": __version__}

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
