"""Locks in Consul: a session, keys that it acquires, and blocking queries. The driver is `ConsulDriver`, for everybody;
the other modules are its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .driver import ConsulDriver
    from .library import check_library

__all__ = [
    "ConsulDriver",
    "check_library",
]

_HOMES = {
    "ConsulDriver": "driver",
    "check_library": "library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
