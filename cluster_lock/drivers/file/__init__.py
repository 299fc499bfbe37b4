"""Locks in files of one host: the kernel frees them when their process ends. The driver is `FileDriver`, for everybody;
the other modules are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .driver import FileDriver

__all__ = [
    "FileDriver",
]

__getattr__ = lazily(
    __name__,
    {
        "FileDriver": "driver",
    },
)
