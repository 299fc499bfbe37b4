"""Locks in files of one host: the kernel frees them when their process ends. The driver is `FileDriver`, for everybody;
the other modules are its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .driver import FileDriver

__all__ = [
    "FileDriver",
]

_HOMES = {
    "FileDriver": "driver",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
