"""What the parts of the conformance suite share: the hooks of a backend, and the bench that a test works on."""

from __future__ import annotations

import asyncio
import itertools
import unittest
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.values import Entry, Grant, Lease, Record

LOCK = "leader/conformance"

Error = TypeVar("Error", bound=Exception)

_numbers = itertools.count(1)


def record(holder: str, *, released: bool = False) -> bytes:
    """A record as the library writes it; no two are alike."""
    return Record(
        holder=holder,
        instance=f"{holder}-{next(_numbers)}",
        host="conformance",
        pid=1,
        since="2024-01-01T00:00:00.000Z",
        version="0",
        released=released,
    ).to_bytes()


class Backend:
    """The backend under test, as the suite needs to know it.

    A driver's own tests subclass `DriverConformance` and override `open_driver`, and of the rest whatever the backend
    differs in or can do.
    """

    ttl: ClassVar[float] = 1.0
    """The shortest that the backend grants, in seconds: tests of expiry wait this long for real."""
    slack: ClassVar[float] = 2.0
    """How long after ttl x expiry_factor the backend may take to free what an expired lease held, in seconds."""
    time_limit: ClassVar[float] = 60.0
    """What one test may take, in seconds."""
    contenders: ClassVar[int] = 50
    """How many leases fight for one lock in the test of high contention."""

    prefix: str
    """The driver's prefix: new for each test, so that no test sees what another one left."""

    def setup_method(self) -> None:
        """Called by pytest before each test; unittest's users call it from setUp."""
        self.prefix = f"conformance-{uuid.uuid4().hex[:12]}/"

    async def open_driver(self) -> Driver:
        """A new client of the backend, opened, with `self.prefix`. The suite closes it."""
        raise NotImplementedError("override open_driver: return a new driver, opened, with self.prefix")

    # Hooks. What is not overridden is not tested, and the test is reported as skipped.

    async def stranger_writes(self, name: str, value: bytes) -> None:
        """Put `value` under the key of `name`, as a person does with the backend's own tool."""
        raise NotImplementedError

    async def stranger_writes_bytes(self, key: bytes, value: bytes, lease: Lease | None) -> None:
        """Put `value` under prefix + `key`, held by `lease` if there is one, past the driver. `key` may be anything:
        what the backend refuses as a key is fine."""
        raise NotImplementedError

    async def stranger_deletes(self, name: str) -> None:
        """Delete the key of `name`, as a person does with the backend's own tool."""
        raise NotImplementedError

    async def count_leases(self) -> int:
        """How many leases are alive on the server. The suite compares two answers of one test."""
        raise NotImplementedError

    async def forgotten_position(self) -> object:
        """A position for `wait_changed` that the backend no longer has (compacted, or from before a restore)."""
        raise NotImplementedError

    async def save_store(self) -> object:
        """A snapshot of the store, leases and all."""
        raise NotImplementedError

    async def restore_store(self, saved: object) -> None:
        """Put the store back to a snapshot while clients are at work; return when it answers again."""
        raise NotImplementedError

    async def restart_server(self) -> None:
        """Stop the server and start it again, with its data if it keeps any; return when it answers again."""
        raise NotImplementedError

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run one test. Override to run on a loop of your own."""

        async def limited() -> None:
            async with asyncio.timeout(self.time_limit):
                await main()

        asyncio.run(limited())


class Bench:
    """What one test works with: clients that are closed at its end, and ways to wait for what must happen."""

    def __init__(self, backend: Backend) -> None:
        self.of = backend
        self.ttl = backend.ttl
        self._clients: list[Driver] = []
        self._leases: list[Lease] = []

    def needs(self, condition: bool, why: str) -> None:
        """Report the test as skipped unless `condition`."""
        if not condition:
            raise unittest.SkipTest(why)

    def needs_hook(self, name: str) -> None:
        self.needs(getattr(type(self.of), name) is not getattr(Backend, name), f"the subclass does not offer {name}")

    async def client(self) -> Driver:
        driver = await self.of.open_driver()
        self._clients.append(driver)
        return driver

    async def clients(self) -> tuple[Driver, Driver]:
        return await self.client(), await self.client()

    async def close(self) -> None:
        """Leave nothing behind on a server that other tests will use."""
        janitor = await self.client()
        for lease in self._leases:
            await janitor.revoke(lease)
        for driver in self._clients:
            await driver.close()

    async def lease(self, driver: Driver, holder: str = "holder", ttl: float | None = None) -> Lease:
        lease = await driver.grant_lease(holder, ttl or self.ttl)
        self._leases.append(lease)
        return lease

    async def long_lease(self, driver: Driver, holder: str = "holder") -> Lease:
        """A lease that does not run out while a test of something else is at work."""
        return await self.lease(driver, holder, max(self.ttl, 30.0))

    async def take(self, driver: Driver, lease: Lease, name: str = LOCK, content: bytes | None = None) -> Grant:
        """Acquire what must be free."""
        grant = await driver.acquire(lease, name, content or record(lease.holder))
        assert grant is not None, f"{name} was refused to {lease.holder}, but is {await self.entry(driver, name)}"
        return grant

    async def entry(self, driver: Driver, name: str = LOCK) -> Entry:
        return (await driver.read([name])).entries[name]

    async def until(
        self,
        driver: Driver,
        name: str,
        wanted: Callable[[Entry], bool],
        *,
        since: object = None,
        within: float = 5.0,
        names: Sequence[str] = (),
    ) -> Entry:
        """Wait from `since` until `name` is as `wanted`, waiting for all of `names` at once. Fails after `within` s."""
        give_up = clock.now() + within
        while True:
            left = give_up - clock.now()
            assert left > 0, f"nothing seen within {within:g} s; {name} is {await self.entry(driver, name)}"
            changes = await driver.wait_changed(names or [name], since, min(left, 2.0))
            since = changes.position
            entry = changes.entries.get(name)
            if entry is not None and wanted(entry):
                return entry

    async def until_free(self, driver: Driver, name: str = LOCK, *, since: object = None, within: float = 5.0) -> Entry:
        return await self.until(driver, name, lambda entry: entry.lease is None, since=since, within=within)

    def expiry(self, lease: Lease, driver: Driver) -> float:
        """After how many seconds at most a silent lease is gone."""
        return lease.ttl * driver.traits.expiry_factor + self.of.slack


async def raised(call: Awaitable[object], kind: type[Error]) -> Error:
    """The error of `kind` that `call` raises. Fails if it raises none."""
    try:
        answer = await call
    except kind as error:
        return error
    raise AssertionError(f"answered {answer!r} instead of raising {kind.__name__}")


Test = Callable[[Any, Bench], Awaitable[None]]


def check(test: Test) -> Callable[[Any], None]:
    """Make the sync test method of an async one. It takes the bench as its argument."""

    def method(self: Backend) -> None:
        async def main() -> None:
            bench = Bench(self)
            try:
                await test(self, bench)
            finally:
                await bench.close()

        self.run(main)

    # Not functools.wraps: pytest would look through __wrapped__ and take `bench` for a fixture.
    method.__name__, method.__qualname__, method.__doc__ = test.__name__, test.__qualname__, test.__doc__
    method.__module__ = test.__module__
    return method
