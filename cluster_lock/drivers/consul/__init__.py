"""Locks in Consul: a session, keys that it acquires, and blocking queries. The driver is `ConsulDriver`, for everybody;
the other modules are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .driver import ConsulDriver
    from .library import check_library

__all__ = [
    "ConsulDriver",
    "check_library",
]

__getattr__ = lazily(
    __name__,
    {
        "ConsulDriver": "driver",
        "check_library": "library",
    },
)
