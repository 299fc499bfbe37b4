"""The one board of a process, on which those who act write, and from which the pages are read."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from cluster_lock import clock
from cluster_lock.host.masking import masked
from cluster_lock.observer import Ending, Observer
from cluster_lock.values import EndCode, EndReason, Origin, Timing
from cluster_lock.version import __version__

from .buckets import Buckets
from .terms import LockFacts
from .totals import Totals

RENEW_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

WorkerState = Literal["starting", "ready", "gone"]
PollerStates = Sequence[Mapping[str, Any]]
UNTOLD: Mapping[str, Any] = {
    "lock": "unknown",
    "bot_id": 0,
    "polling": False,
    "polling_for": None,
    "waiting": None,
    "last_poll_age": None,
    "last_success_age": None,
    "deaf": False,
    "failing": False,
    "conflicts_60s": 0,
    "storm": False,
    "last_error": None,
    "pending": 0,
    "unconfirmed": 0,
    "window_full": False,
    "window_full_for": None,
    "early_running": 0,
    "handled": 0,
    "failed": 0,
    "timed_out": 0,
    "redelivered": 0,
    "confirmed_early": 0,
    "given_up": 0,
}
"""What a poller is taken to be in that it does not say."""
AGES = "last_poll_age", "last_success_age", "window_full_for"
"""What grows while a poller says nothing new."""


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
        self.poller_source: Callable[[], PollerStates] | None = None
        """Where the states of the pollers come from if they run in this process; else `pollers()` brings them."""
        self.changed = asyncio.Event()
        """Set, and replaced, at each transition."""

        self.has_worker = worker
        self.worker_state: WorkerState = "starting"
        self.worker_pid: int | None = None
        self.worker_starts = 0
        self.worker_sign = self.began

        self.timing: Timing | None = None
        self.deadline: float | None = None
        self.trouble: str | None = None
        self.trouble_at: str | None = None
        self.renewals: Counter[str] = Counter()
        self.renew_times = Buckets(RENEW_BOUNDS)

        self.locks: dict[str, LockFacts] = {}
        self.totals = Totals()
        self.error: str | None = None
        self.error_at: str | None = None
        self._secrets = tuple(secrets)
        self._pollers: PollerStates = ()
        self._pollers_at = self.began

    # The lease

    def lease_granted(self, timing: Timing, deadline: float) -> None:
        self.timing, self.deadline, self.trouble = timing, deadline, None
        self._change()

    def lease_renewed(self, deadline: float, took: float) -> None:
        self.deadline = deadline
        self.renewals["renewed"] += 1
        self.renew_times.add(took)
        if self.trouble is not None:
            self.trouble = None
            self._change()

    def lease_unsure(self, reason: str) -> None:
        self.renewals["unsure"] += 1
        if self.trouble is None:
            self._change()
        self.trouble, self.trouble_at = self._failed(reason), clock.utc_text()

    def lease_lost(self, reason: str) -> None:
        self.deadline = None
        self.renewals["lost"] += 1
        self.trouble, self.trouble_at = self._failed(reason), clock.utc_text()
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

    def worker(self, state: WorkerState, pid: int | None = None, reason: str | None = None) -> None:
        """The worker process has begun (`starting`), may work (`ready`), or has ended (`gone`, and why)."""
        self.worker_state, self.worker_sign = state, clock.now()
        if state == "starting":
            self.worker_starts += 1
        if state == "gone":
            self.worker_pid, self._pollers = None, ()
            self._end_all(reason or "the worker has ended")
        elif pid is not None:
            self.worker_pid = pid
        self._change()

    def _end_all(self, reason: str) -> None:
        """Whatever it did not live to tell: who owns the session gives its locks away."""
        said = self._failed(reason)
        for lock in self.locks.values():
            if lock.leads:
                how = Ending.RELEASED if self.lease_remaining() else Ending.LOST
                lock.end(how, said, EndCode.WORKER_ENDED)
            lock.stand_by("stopped")

    def worker_alive(self) -> None:
        """A sign of life of the worker's loop."""
        self.worker_sign = clock.now()

    def pollers(self, states: PollerStates) -> None:
        """The newest states of the worker's pollers: the fields of `cluster_lock.aiogram.state.PollerState`."""
        self._pollers, self._pollers_at = states, clock.now()
        self._take(states)

    def poller_states(self) -> list[dict[str, Any]]:
        """The states as of now, ages too, fit to be shown."""
        if self.poller_source is not None:
            states, age = self.poller_source(), 0.0
            self._take(states)
        else:
            states, age = self._pollers, clock.now() - self._pollers_at
        shown = []
        for state in states:
            older = {name: state[name] + age for name in AGES if state.get(name) is not None}
            texts = {name: self.shown(value) for name, value in state.items() if isinstance(value, str)}
            shown.append({**UNTOLD, **state, **older, **texts})
        return shown

    def _take(self, states: PollerStates) -> None:
        self.totals.take(states)
        for state in states:
            lock = self.locks.get(str(state.get("lock")))
            # A poller that settles has not begun: it says None.
            since = state.get("polling_for", 0.0 if state.get("polling") else None)
            if lock is not None and since is not None:
                lock.work_began(clock.now() - since)

    # Reading

    def look_around(self) -> None:
        """Take in who leads the locks that we do not, and what pollers of this process do: cheap, from memory, to be
        called every second."""
        if self.poller_source is not None:
            self._take(self.poller_source())
        news = [lock.see(self.peers.leader(lock.name)) for lock in self.locks.values()]
        if any(news):
            self._change()

    def lease_remaining(self) -> float:
        """Seconds until the lease is not trusted any more."""
        return max(0.0, self.deadline - clock.now()) if self.deadline is not None else 0.0

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
