"""The faulty driver does to its caller exactly what its script says, and nothing where the script says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster_lock import clock
from cluster_lock.driver import Driver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.testing.conformance import DriverConformance
from cluster_lock.testing.faulty import (
    LOST_REPLY,
    LOST_REQUEST,
    VERBS,
    DriverFault,
    FaultyDriver,
    refuse,
    slow_reply,
    slow_request,
)
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import Grant, Lease

LOCK = "leader/x"


class TestTransparent(DriverConformance):
    """Without a script it keeps the contract as the driver inside does."""

    ttl = 0.3
    slack = 0.5

    def setup_method(self) -> None:
        super().setup_method()
        self.store = MemoryBackend()

    async def open_driver(self) -> Driver:
        driver = FaultyDriver(MemoryDriver(self.store, prefix=self.prefix))
        await driver.open()
        return driver

    async def count_leases(self) -> int:
        return len(self.store.leases())

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def awaited() -> None:
            await main()

        run(awaited())


class Scene:
    """A faulty client and an honest one, on one store; the faulty one has a lease."""

    def __init__(self) -> None:
        self.store = MemoryBackend()
        self.faulty = FaultyDriver(MemoryDriver(self.store), request_timeout=4.0)
        self.honest = MemoryDriver(self.store)

    async def lease(self) -> Lease:
        return await self.honest.grant_lease("me", 60)

    async def taken(self, lease: Lease) -> Grant:
        grant = await self.honest.acquire(lease, LOCK, b"{}")
        assert grant is not None
        return grant

    async def holder(self) -> str | None:
        return (await self.honest.read([LOCK])).entries[LOCK].lease


def play(script: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene()
        await script(scene)
        await scene.faulty.close()

    run(main())


def test_lost_request_was_not_applied() -> None:
    """A lost request is BackendUnavailable, and the store has not seen it."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        scene.faulty.next("acquire", LOST_REQUEST)
        with pytest.raises(BackendUnavailable):
            await scene.faulty.acquire(lease, LOCK, b"{}")
        assert await scene.holder() is None
        assert await scene.faulty.acquire(lease, LOCK, b"{}") is not None

    play(script)


def test_lost_reply_was_applied() -> None:
    """A lost reply is BackendUnavailable too, and the store has done it all the same."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        scene.faulty.next("acquire", LOST_REPLY, times=2)
        for _ in range(2):
            with pytest.raises(BackendUnavailable):
                await scene.faulty.acquire(lease, LOCK, b"{}")
            assert await scene.holder() == lease.id
        assert await scene.faulty.acquire(lease, LOCK, b"{}") is not None

    play(script)


def test_slow_request_is_applied_after_its_caller_gave_up() -> None:
    """A request that takes longer than the caller waits is given up in time, and arrives nevertheless."""

    async def script(scene: Scene) -> None:
        lease, begun = await scene.lease(), clock.now()
        scene.faulty.next("acquire", slow_request(10))
        with pytest.raises(BackendUnavailable):
            await scene.faulty.acquire(lease, LOCK, b"{}")
        assert clock.now() - begun == pytest.approx(4)
        assert await scene.holder() is None
        await scene.faulty.settled()
        assert clock.now() - begun == pytest.approx(10)
        assert await scene.holder() == lease.id

    play(script)


def test_slow_request_and_reply_take_their_time() -> None:
    """Within the caller's patience a slow request is applied late and a slow reply at once; both are answered late."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        for fault, held_meanwhile in ((slow_request(3), None), (slow_reply(3), lease.id)):
            begun = clock.now()
            scene.faulty.next("acquire", fault)
            asking = asyncio.create_task(scene.faulty.acquire(lease, LOCK, b"{}"))
            await asyncio.sleep(1)
            assert await scene.holder() == held_meanwhile
            grant = await asking
            assert clock.now() - begun == pytest.approx(3)
            assert grant is not None
            await scene.honest.release(grant, b"{}")

    play(script)


def test_cancelled_caller_does_not_stop_the_request() -> None:
    """Who is cancelled while the request is under way has sent it all the same."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        gate = scene.faulty.hold("acquire")
        asking = asyncio.create_task(scene.faulty.acquire(lease, LOCK, b"{}"))
        await gate.arrived.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert await scene.holder() is None
        gate.open()
        await scene.faulty.settled()
        assert await scene.holder() == lease.id

    play(script)


def test_copy_arrives_when_told() -> None:
    """The last request of a verb is delivered once more, with its old arguments, and its answer is returned."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        grant = await scene.taken(lease)
        await scene.faulty.release(grant, b'"first"')
        again = await scene.taken(lease)
        assert await scene.faulty.deliver_again("release") is None
        assert (await scene.honest.read([LOCK])).entries[LOCK].index == again.index
        await scene.faulty.renew(lease)
        await scene.honest.revoke(lease)
        assert isinstance(await scene.faulty.deliver_again("renew"), LeaseExpired)
        with pytest.raises(LookupError, match="acquire"):
            await scene.faulty.deliver_again("acquire")

    play(script)


def test_down_refuses_everything_until_up() -> None:
    """While the backend is down every verb is BackendUnavailable at once, and a wait under way is cut off."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        grant = await scene.taken(lease)
        (entry,) = await scene.honest.scan("leader/")
        position = (await scene.honest.read([LOCK])).position
        waiting = asyncio.create_task(scene.faulty.wait_changed([LOCK], position, 50))
        await asyncio.sleep(1)
        scene.faulty.down()
        begun = clock.now()
        with pytest.raises(BackendUnavailable):
            await waiting
        driver = scene.faulty
        calls = (
            driver.grant_lease("a", 1),
            driver.renew(lease),
            driver.revoke(lease),
            driver.acquire(lease, LOCK, b""),
            driver.release(grant, b""),
            driver.transfer(grant, entry, b""),
            driver.announce(lease, "a", b""),
            driver.withdraw(lease, "a"),
            driver.read([LOCK]),
            driver.scan(""),
            driver.wait_changed([LOCK], None, 9),
        )
        assert len(calls) == len(VERBS)
        for call in calls:
            with pytest.raises(BackendUnavailable):
                await call
        assert clock.now() == begun
        assert set(driver.calls) == VERBS
        assert await scene.holder() == lease.id
        driver.up()
        await driver.renew(lease)

    play(script)


def test_silent_backend_costs_the_whole_timeout() -> None:
    """A backend that never answers is given up after the request timeout, not before."""

    async def script(scene: Scene) -> None:
        lease, begun = await scene.lease(), clock.now()
        scene.faulty.down(silent=True)
        with pytest.raises(BackendUnavailable):
            await scene.faulty.renew(lease)
        assert clock.now() - begun == pytest.approx(4)

    play(script)


def test_scripts_run_in_order_and_fall_back() -> None:
    """Faults for single calls come first and in order, then the one for every call, until that is taken back."""

    async def script(scene: Scene) -> None:
        lease = await scene.lease()
        scene.faulty.always("renew", LOST_REQUEST)
        scene.faulty.next("renew", refuse(PermissionRefused("no")))
        scene.faulty.next("renew", DriverFault())
        with pytest.raises(PermissionRefused):
            await scene.faulty.renew(lease)
        await scene.faulty.renew(lease)
        for _ in range(3):
            with pytest.raises(BackendUnavailable):
                await scene.faulty.renew(lease)
        scene.faulty.always("renew", None)
        await scene.faulty.renew(lease)
        assert scene.faulty.calls == {"renew": 6}

    play(script)


def test_unknown_verb_is_refused() -> None:
    """A script for a verb that does not exist is an error, not a fault that never comes."""
    with pytest.raises(ValueError, match="renew"):
        FaultyDriver(MemoryDriver()).next("refresh", LOST_REPLY)
