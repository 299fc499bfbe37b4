"""What people may want to see of the store beside the locks. Nothing here is needed for leading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cluster_lock.values import BackendNode, Entry, LeaseTimes

from . import looking
from .link import RedisLink
from .script import Script

_AT_ONCE = 500
"""Keys of the whole database that one request looks at."""


class RedisInspecting:
    """A part of the driver."""

    _prefix: str

    def _parts(self) -> tuple[RedisLink, Any]:
        raise NotImplementedError

    async def _run(self, script: Script, *arguments: str | bytes, **how: Any) -> Any:
        raise NotImplementedError

    async def inspect(self, prefix: str) -> list[Entry]:
        """Goes through the whole database in small steps, since what others wrote under our keys stands in no list."""
        names, cursor = set[str](), b"0"
        pattern = _literally((self._prefix + prefix).encode()) + b"*"
        while True:
            cursor, keys = await self._run(looking.KEYS, cursor, pattern, str(_AT_ONCE))
            names.update(key.decode(errors="backslashreplace").removeprefix(self._prefix) for key in keys)
            if cursor == b"0":
                break
        rows = await self._run(looking.LOOK, *names)
        entries = [
            Entry(name, lease.decode() or None, int(index), record)
            for name, (lease, index, record, *_) in zip(names, rows, strict=True)
            if record is not None
        ]
        return sorted(entries, key=lambda entry: entry.index)

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        found = await self._run(looking.TIMES, *lease_ids)
        return {
            lease_id: LeaseTimes(float(value.split(b" ", 1)[0]) / 1000, left / 1000)
            for lease_id, (value, left) in zip(lease_ids, found, strict=True)
            if left >= 0 and value.split(b" ", 1)[0].isdigit()
        }

    async def nodes(self) -> list[BackendNode]:
        link, _ = self._parts()
        seconds, microseconds = await self._run(looking.TIME)
        server = link.server
        assert server is not None
        version, now = f"{server.version} ({server.product})", int(seconds) + int(microseconds) / 1e6
        return [BackendNode(server.identity[0][:12], link.where, True, version, told_at=now)]


def _literally(text: bytes) -> bytes:
    """As a pattern of SCAN that matches itself alone."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in text)
