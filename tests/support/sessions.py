"""Sessions on one memory backend, for tests of what stands above the drivers."""

from __future__ import annotations

from typing import Any

from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Term
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.values import LEADER, STANDBY, Entry, Record, Timing

TIMING = Timing(ttl=15.0, margin=3.0, stop_time=1.0)
PREFIX = "cluster-lock/"


def session(store: MemoryBackend, instance: str, *, driver: Driver | None = None, **options: Any) -> Session:
    """A session of its own client of `store`, not yet entered. Nothing ends the test process at a deadline."""
    options = {"timing": TIMING, "guard": NoGuard(), **options}
    return Session(driver or MemoryDriver(store), instance=instance, **options)


async def until_steps_down(term: Term) -> None:
    """Work that does nothing, and obeys."""
    await term.wait_step_down()


def key_of(name: str) -> str:
    """The lock's key as the store knows it."""
    return PREFIX + LEADER + name


def holder(store: MemoryBackend, name: str) -> str | None:
    """The instance that holds the lock, as the store sees it."""
    lease = store.entry(key_of(name), name).lease
    return store.leases()[lease].split("@")[0] if lease is not None else None


def standby(store: MemoryBackend, instance: str) -> Entry:
    """The contender record of `instance`; without a lease and a record if there is none."""
    for key in store.keys_under(PREFIX + STANDBY):
        entry = store.entry(key, key.removeprefix(PREFIX))
        record = Record.from_bytes(entry.record or b"")
        if record is not None and record.instance == instance:
            return entry
    return Entry(STANDBY + instance, None, store.index, None)
