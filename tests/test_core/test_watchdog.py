"""The watchdog: when a lease is trusted, and when it is not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.lease.watchdog import Watchdog
from cluster_lock.testing.virtual_time import block, suspend
from cluster_lock.values import Lease, Timing

pytestmark = pytest.mark.virtual

TIMING = Timing(ttl=15.0, margin=3.0, stop_time=1.0)
Renew = Callable[[], Awaitable[None]]


class Scripted(MemoryDriver):
    """Renews as the test says; None: as the store does."""

    def __init__(self, store: MemoryBackend) -> None:
        super().__init__(store)
        self.script: Renew | None = None
        self.renewals: list[float] = []

    async def renew(self, lease: Lease) -> int:
        self.renewals.append(clock.now())
        if self.script is not None:
            await self.script()
        return await super().renew(lease)


@asynccontextmanager
async def watchdog(
    driver: Scripted, confirm: Callable[[int], Awaitable[None]] | None = None
) -> AsyncIterator[Watchdog]:
    async def confirmed(epoch: int) -> None:
        return None

    sent = clock.now()
    lease = await driver.grant_lease("a", TIMING.ttl)
    dog = Watchdog(driver, lease, sent, TIMING, confirm=confirm or confirmed, moved=lambda deadline: None)
    running = asyncio.create_task(dog.run())
    try:
        yield dog
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def refuse(error: Exception) -> Renew:
    async def script() -> None:
        raise error

    return script


def take(seconds: float) -> Renew:
    async def script() -> None:
        await asyncio.sleep(seconds)

    return script


async def test_deadline_counts_from_before_the_request() -> None:
    """A renewal whose reply takes three seconds moves the deadline to its sending plus ttl less margin."""
    driver = Scripted(MemoryBackend())
    driver.script = take(3.0)
    async with watchdog(driver) as dog:
        before = dog.deadline
        await asyncio.sleep(TIMING.renew_every + 3.1)
        assert dog.deadline > before
        assert dog.deadline == pytest.approx(driver.renewals[-1] + 15.0 - 3.0)


async def test_three_renewals_per_ttl() -> None:
    """An undisturbed lease is renewed every third of its ttl, and never lost."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        await asyncio.sleep(10 * TIMING.ttl + 1)
        assert len(driver.renewals) == 30
        assert not dog.lost.done()


@pytest.mark.parametrize("error", [BackendUnavailable("down"), PermissionRefused("no"), TimeoutError()])
async def test_an_unsure_renewal_changes_nothing(error: Exception) -> None:
    """A renewal that nobody answers, or that is refused, neither moves the deadline nor ends the lease before
    stop_at."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        deadline = dog.deadline
        driver.script = refuse(error)
        await asyncio.sleep(dog.stop_at - clock.now() - 0.01)
        assert len(driver.renewals) > 5
        assert dog.deadline == deadline
        assert not dog.lost.done()
        await asyncio.wait_for(dog.lost, 0.1)
        assert clock.now() == pytest.approx(deadline - TIMING.stop_time, abs=0.05)


async def test_a_trouble_that_passes_costs_nothing() -> None:
    """A backend that is away for less than the time to stop_at costs neither the lease nor a later renewal."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        driver.script = refuse(BackendUnavailable("restarting"))
        await asyncio.sleep(9.0)
        driver.script = None
        await asyncio.sleep(60.0)
        assert not dog.lost.done()


async def test_gone_is_lost_at_once() -> None:
    """When the backend says that the lease is gone, it is lost in that moment, not at the deadline."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        driver.script = refuse(LeaseExpired("gone"))
        reason = await asyncio.wait_for(dog.lost, TIMING.renew_every + 0.1)
        assert "gone" in reason
        assert clock.now() < dog.stop_at


async def test_a_grant_that_took_too_long_is_lost_from_the_first_moment() -> None:
    """A lease whose grant was under way for longer than it may be trusted is lost when it comes."""
    driver = Scripted(MemoryBackend())
    lease = await driver.grant_lease("a", TIMING.ttl)

    async def confirmed(epoch: int) -> None: ...

    late = clock.now() - TIMING.ttl
    dog = Watchdog(driver, lease, late, TIMING, confirm=confirmed, moved=lambda deadline: None)
    assert dog.lost.done()
    assert "last renewed 15.0 s ago" in await dog.run()


async def test_a_hung_renewal_cannot_delay_the_loss() -> None:
    """A renewal that ignores its cancellation for a minute does not move the moment of the loss."""

    async def stubborn() -> None:
        end = clock.now() + 60
        while clock.now() < end:
            try:
                await asyncio.sleep(end - clock.now())
            except asyncio.CancelledError:
                continue

    driver = Scripted(MemoryBackend())
    driver.script = stubborn
    async with watchdog(driver) as dog:
        stop_at = dog.stop_at
        await asyncio.wait_for(asyncio.shield(dog.lost), 20)
        assert clock.now() == pytest.approx(stop_at, abs=0.05)


async def test_what_succeeds_after_the_deadline_revives_nothing() -> None:
    """A renewal that was answered, but is processed only after stop_at because the loop was blocked, is not
    believed."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        deadline = dog.deadline

        async def blocked(lease: Lease) -> int:
            block(dog.stop_at - clock.now() + 0.5)
            return 0  # in the same step: the loop had no time to look at its timers

        driver.renew = blocked  # type: ignore[method-assign]
        await asyncio.wait_for(asyncio.shield(dog.lost), 30)
        assert dog.deadline == deadline


async def test_an_answer_of_a_deposed_server_does_not_count() -> None:
    """A renewal that its confirmation finds answered by a deposed server leaves the deadline where it was."""

    async def deposed(epoch: int) -> None:
        raise BackendUnavailable("the store is in a later term")

    driver = Scripted(MemoryBackend())
    async with watchdog(driver, deposed) as dog:
        deadline = dog.deadline
        await asyncio.wait_for(asyncio.shield(dog.lost), 30)
        assert dog.deadline == deadline


@pytest.mark.parametrize("awake", [1.1, 1.6, 2.1])
async def test_a_suspended_machine_loses_its_lease_on_waking(awake: float) -> None:
    """When the boot clock runs on while the loop's own clock stands still, the loss comes with the next look."""
    driver = Scripted(MemoryBackend())
    async with watchdog(driver) as dog:
        await asyncio.sleep(awake)
        suspend(3600)
        await asyncio.wait_for(asyncio.shield(dog.lost), 0.6)
