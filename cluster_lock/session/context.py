"""What the parts of a session know of each other."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_lock.driver import Driver
from cluster_lock.lease.guard import Guard, NoGuard
from cluster_lock.observer import Observer
from cluster_lock.values import Timing

from .background import BackgroundTasks
from .claims import Claims
from .contender import Contender
from .identity import Identity
from .request_pace import RequestPace
from .session_lease import SessionLease
from .touched import Touched
from .watch import Watch


@dataclass(frozen=True, slots=True)
class Context:
    """Of one session. `driver`: each verb has `timing.request`. `watch`: what the backend is known to say. `lease`: the
    one lease. `identity`: who we are. `contender`: the record by which others know that we wait. `claims`: who holds a
    lock, and who takes one. `touched`: what may still come to stand under the lease. `pace`: of requests to step
    down."""

    driver: Driver
    timing: Timing
    observer: Observer
    guard: Guard | NoGuard
    identity: Identity
    watch: Watch
    lease: SessionLease
    contender: Contender
    claims: Claims
    touched: Touched
    pace: RequestPace
    background: BackgroundTasks
