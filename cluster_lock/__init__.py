"""One leader on many servers: locks with leases over Consul, etcd or a file, and a guarded aiogram poller.

The names below are loaded when they are first used: importing the package alone loads no client library, no pydantic
and no yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazily
from .version import __version__

if TYPE_CHECKING:
    from .config import load as load_settings
    from .config import open_driver
    from .driver import Driver
    from .election import Election, Leadership, Role, Term
    from .errors import ClusterLockError, LockLost
    from .keeper.opening import open_election
    from .lease.threads import TermExecutor
    from .session import Hold, Lock, Session, open_session
    from .values import Grant, Origin, Timing

__all__ = [
    "ClusterLockError",
    "Driver",
    "Election",
    "Grant",
    "Hold",
    "Leadership",
    "Lock",
    "LockLost",
    "Origin",
    "Role",
    "Session",
    "Term",
    "TermExecutor",
    "Timing",
    "__version__",
    "load_settings",
    "open_driver",
    "open_election",
    "open_session",
]

__getattr__ = lazily(
    __name__,
    {
        "ClusterLockError": "errors",
        "Driver": "driver",
        "Election": "election",
        "Grant": "values",
        "Hold": "session",
        "Leadership": "election",
        "Lock": "session",
        "LockLost": "errors",
        "Origin": "values",
        "Role": "election",
        "Session": "session",
        "Term": "election",
        "TermExecutor": "lease.threads",
        "Timing": "values",
        "load_settings": "config:load",
        "open_driver": "config",
        "open_election": "keeper.opening",
        "open_session": "session",
    },
)
