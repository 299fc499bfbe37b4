"""Finds redis-py, or says in one sentence how to get it."""

from __future__ import annotations

from functools import cache
from typing import Any

from cluster_lock.errors import DriverMissing


@cache
def load() -> Any:
    """The package `redis`, its `asyncio` loaded. Raises DriverMissing."""
    try:
        import redis
        import redis.asyncio.sentinel
    except ImportError as error:
        raise DriverMissing(f"the backend redis needs redis-py: pip install 'cluster-lock[redis]' ({error})") from error
    return redis


def check_library() -> None:
    """Raises DriverMissing if the driver cannot be used here."""
    load()
