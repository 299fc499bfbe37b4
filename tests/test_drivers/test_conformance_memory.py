"""The memory driver is the specification: it passes the whole suite, every hook offered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.testing import virtual_time
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.values import Traits


class TestMemory(DriverConformance):
    ttl = 0.8
    slack = 0.5
    traits = Traits(linearizable_waits=True)

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

    async def save_store(self) -> object:
        return self.store.save()

    async def restore_store(self, saved: object) -> None:
        self.store.restore(saved)

    async def count_leases(self) -> int:
        return len(self.store.leases())

    async def forgotten_position(self) -> object:
        return self.store.index + 1_000_000


class TestMemoryInVirtualTime(TestMemory):
    """The suite runs on a loop of the subclass's own, where a long ttl costs nothing."""

    ttl = 15.0

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def awaited() -> None:
            await main()

        virtual_time.run(awaited())


class TestMemoryLateExpiry(TestMemoryInVirtualTime):
    """A server that frees after twice the ttl, as Consul does."""

    traits = Traits(expiry_factor=2.0)


class TestMemoryTiedToConnection(TestMemoryInVirtualTime):
    """A server whose leases end with the connection and that cannot transfer, as files are."""

    traits = Traits(expires=False, transfers=False)
