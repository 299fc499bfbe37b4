"""What each instance says about itself while it runs: small datagrams over loopback.

A datagram never makes its sender wait, whatever became of the one who should read it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cluster_lock import clock

HOST = "127.0.0.1"
EVERY = 0.1
FRESH_FOR = 0.5
"""Seconds after which a status says nothing about now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`term`: the fencing token, while it leads. `left`: seconds until it stops by itself unless the lease is renewed.
    `handled`: updates since the process began. `lost`: the terms that ended without their last confirmation because the
    lease was lost. `at`: `clock.now()`."""

    client: str
    role: str
    term: int | None = None
    left: float = 0.0
    handled: int = 0
    lost: tuple[int, ...] = ()
    at: float = 0.0

    @property
    def is_fresh(self) -> bool:
        return clock.now() - self.at < FRESH_FOR

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Status:
        content = json.loads(raw)
        return cls(**{**content, "lost": tuple(content["lost"])})


class StatusSender:
    """Tells the status to a port of this host. What is not heard is lost; the next one says it again."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = (HOST, port)

    def send(self, status: Status) -> None:
        try:
            self._socket.sendto(status.to_bytes(), self._address)
        except OSError:
            return  # nobody listens any more, or the buffer is full

    def close(self) -> None:
        self._socket.close()


async def listen(heard: Callable[[Status], None]) -> tuple[asyncio.DatagramTransport, int]:
    """Call `heard` with each status that comes in; the transport to close, and the port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Listener(heard), local_addr=(HOST, 0))
    return transport, int(transport.get_extra_info("sockname")[1])


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[Status], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._heard(Status.from_bytes(data))
