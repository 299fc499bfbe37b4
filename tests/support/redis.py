"""A replica of a Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster_lock.testing.servers import RedisServer


@contextmanager
def replica_of(primary: RedisServer) -> Iterator[RedisServer]:
    """One that follows already. The first one gives its primary another replication id: who knew that before takes it
    for another server."""
    with RedisServer(primary=primary) as replica:
        for each in (primary, replica):
            each.cli("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        replica.wait_follows()
        yield replica
