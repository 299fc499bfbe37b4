"""Public test helpers; importing this package loads none of them.

For programs that use the library and for those who write a driver. What `servers` and `telegram` have beside these
names is public too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

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

__getattr__ = lazily(
    __name__,
    {
        "ConsulServer": "servers",
        "DriverConformance": "conformance",
        "EtcdServer": "servers",
        "FaultyDriver": "faulty",
        "RedisServer": "servers",
        "ServerMissing": "servers",
        "SimulatorControl": "telegram",
        "TelegramSimulator": "telegram",
    },
)
