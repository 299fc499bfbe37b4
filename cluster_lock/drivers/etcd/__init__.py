"""Locks in etcd: a lease, keys that are attached to it, and transactions. The driver is `EtcdDriver`, for everybody;
the other modules are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .driver import EtcdDriver
    from .library import check_library

__all__ = [
    "EtcdDriver",
    "check_library",
]

__getattr__ = lazily(
    __name__,
    {
        "EtcdDriver": "driver",
        "check_library": "library",
    },
)
