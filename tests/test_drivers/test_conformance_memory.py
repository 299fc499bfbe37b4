"""The memory driver is the specification: it passes the whole suite, every hook offered."""

from __future__ import annotations

from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.values import Traits


class TestMemory(DriverConformance):
    ttl = 0.3
    slack = 0.5
    traits = Traits()

    def setup_method(self) -> None:
        super().setup_method()
        self.store = MemoryBackend(traits=self.traits)

    async def open_driver(self) -> Driver:
        driver = MemoryDriver(self.store, prefix=self.prefix)
        await driver.open()
        return driver

    async def stranger_writes(self, name: str, value: bytes) -> None:
        self.store.stranger_writes(self.prefix + name, value)

    async def stranger_deletes(self, name: str) -> None:
        self.store.stranger_deletes(self.prefix + name)

    async def count_leases(self) -> int:
        return len(self.store.leases())

    async def forgotten_position(self) -> object:
        return self.store.index + 1_000_000


class TestMemoryLateExpiry(TestMemory):
    """A server that frees after twice the ttl, as Consul does."""

    traits = Traits(expiry_factor=2.0)


class TestMemoryTiedToConnection(TestMemory):
    """A server whose leases end with the connection and that cannot transfer, as files are."""

    traits = Traits(expires=False, transfers=False)
