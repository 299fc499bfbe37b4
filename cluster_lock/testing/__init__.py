"""Public test helpers; importing this package loads none of them.

For programs that use the library and for those who write a driver. What `servers` and `telegram` have beside these
names is public too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import DriverConformance
    from .faulty import FaultyDriver
    from .servers import ConsulServer, EtcdServer, RedisServer, ServerMissing
    from .telegram import SimulatorControl, TelegramSimulator

__all__ = [
    "ConsulServer",
    "DriverConformance",
    "EtcdServer",
    "FaultyDriver",
    "RedisServer",
    "ServerMissing",
    "SimulatorControl",
    "TelegramSimulator",
]

_HOMES = {
    "ConsulServer": "servers",
    "DriverConformance": "conformance",
    "EtcdServer": "servers",
    "FaultyDriver": "faulty",
    "RedisServer": "servers",
    "ServerMissing": "servers",
    "SimulatorControl": "telegram",
    "TelegramSimulator": "telegram",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
