"""Locks in Redis or Valkey: a lease with a time to live, keys that name their lease, and a script for each verb. The
driver is `RedisDriver`, for everybody; the other modules are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .driver import RedisDriver
    from .library import check_library

__all__ = [
    "RedisDriver",
    "check_library",
]

__getattr__ = lazily(
    __name__,
    {
        "RedisDriver": "driver",
        "check_library": "library",
    },
)
