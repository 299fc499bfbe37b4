"""What stands beside the lease row: in the mode `lease` nothing. Each mode answers the same questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cluster_lock.values import Grant, Lease

from .view import View


class Beside:
    """Called by the driver's verbs; `of_row` is what the verb does with the row. Moments are `clock.now()`."""

    async def granted(self, ttl: float, of_row: Callable[[], Awaitable[Lease]]) -> Lease:
        return await of_row()

    def renewed(self, lease: Lease, sent: float) -> None:
        """By a request that was sent at this moment. Takes no time and fails in no way."""

    def gone(self, lease: Lease) -> None:
        """The server says so."""

    async def revoke(self, lease: Lease, of_row: Callable[[], Awaitable[None]]) -> None:
        await of_row()

    async def acquire(self, lease: Lease, name: str, of_row: Callable[[], Awaitable[Grant | None]]) -> Grant | None:
        return await of_row()

    async def release(self, grant: Grant, of_row: Callable[[], Awaitable[None]]) -> None:
        await of_row()

    async def seen(self, view: View) -> None:
        """Somebody has looked."""

    async def close(self) -> None:
        """In bounded time; revokes nothing."""
