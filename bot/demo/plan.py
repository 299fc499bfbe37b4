"""What one run of the demo does, worked out from its few options before anything is started."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.values import Timing

BACKENDS = ("file", "etcd", "consul", "redis", "postgres")
CHATS = (101, 102, 103, 104, 105)

FREED_AFTER = {"file": 1, "etcd": 1, "consul": 2, "redis": 1, "postgres": 1}
"""After how many ttl the server frees the lock of a holder that is silent (docs/design.md#consul-frees-late)."""

SLOWEST_TTL = 10.0
FASTEST_TTL = 4.0
"""With less, three bots that start on a busy machine cost each other their leases."""
FOREIGN_TTL = {"file": 5.0, "etcd": 5.0, "consul": 10.0, "redis": 5.0, "postgres": 5.0}
"""On a server that is not ours, whose defaults allow no less."""


@dataclass(frozen=True, slots=True)
class Configured:
    """Somebody's own server is used. `file`: the configuration that was named, None for what is found without."""

    file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """`seconds`: how long the traffic lasts at least. `rate`: updates a second. `config`: what says where the backend's
    server is; None: the demo starts (and restarts) one of its own."""

    backend: str
    instances: int = 3
    seconds: float = 20.0
    rate: float = 20.0
    config: Configured | None = None
    bot_id: int = field(default_factory=lambda: random.randint(100_000_000, 999_999_999))

    @property
    def timing(self) -> Timing:
        """Short times, so that every take-over fits into the traffic, and in proportion to the defaults."""
        if self.config is None:
            share = self.seconds / 7 / FREED_AFTER[self.backend]
            ttl = float(round(min(max(share, FASTEST_TTL), SLOWEST_TTL)))
        else:
            ttl = FOREIGN_TTL[self.backend]
        return Timing(
            ttl=ttl,
            margin=ttl * 0.3,
            stop_time=ttl * 0.15,
            drain=2.0,
            cancel_grace=0.5,
        )

    @property
    def times(self) -> TelegramTimes:
        return TelegramTimes(handler_timeout=10.0, poll_timeout=5.0)

    @property
    def freed_after(self) -> float:
        """Seconds after its last renewal in which a dead leader's lock is free again, with etcd's and Consul's own
        slowness in noticing."""
        return self.timing.ttl * FREED_AFTER[self.backend] + 1.0

    @property
    def short_stop(self) -> float:
        """Seconds for which a leader is stopped that is to survive it: half of the margin."""
        return self.timing.margin / 2

    @property
    def restarts_backend(self) -> bool:
        return self.config is None and self.backend != "file"

    @property
    def token(self) -> str:
        """The simulator takes any token that looks like one."""
        return f"{self.bot_id}:demo-token-of-the-simulated-telegram"
