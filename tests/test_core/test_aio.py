"""What asyncio does not say in one word."""

from __future__ import annotations

import asyncio

import pytest

from cluster_lock import clock
from cluster_lock.aio import ASK_AGAIN, end

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize("times", [1, 2])
async def test_a_task_that_swallows_its_cancellation_is_ended(times: int) -> None:
    """It is cancelled again each time, and one that ends at once is not waited for."""

    async def swallow() -> None:
        for _ in range(times):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(3600)

    swallowing, ending = asyncio.ensure_future(swallow()), asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    began = clock.now()
    await end((swallowing, ending))
    assert clock.now() - began == pytest.approx(times * ASK_AGAIN)
    assert swallowing.cancelled()
    assert ending.cancelled()
