"""The election of this process, with a session here or at the keeper."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cluster_lock.election import Election
from cluster_lock.observer import SILENT, Observer
from cluster_lock.session import open_session

from .names import under_keeper, visits_keeper

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.process import InstanceLock


@asynccontextmanager
async def open_election(
    settings: Settings, *, fail_fast: bool = False, health: str | None = None, observer: Observer = SILENT
) -> AsyncIterator[Election]:
    """The election that `settings` describe: on a session of its own, or, in a process that a keeper started and below
    `cluster-lock run`, on the keeper's. Raises what makes it impossible.

    `fail_fast`, `health`: as for a Session; under a keeper they are the keeper's. `observer`: told of every transition.
    """
    async with AsyncExitStack() as stack:
        if (election := await _kept(stack, settings, observer)) is None:
            session = await stack.enter_async_context(
                open_session(settings, fail_fast=fail_fast, health=health, observer=observer)
            )
            election = Election(session)
        yield election


async def _kept(stack: AsyncExitStack, settings: Settings, observer: Observer = SILENT) -> Election | None:
    """The election on a keeper's session, if there is one that leads for this process."""
    if sys.platform != "win32" and (under_keeper() or visits_keeper()):
        from .worker import open_visiting_election, open_worker_election

        if under_keeper():
            return await stack.enter_async_context(open_worker_election(settings.timing, observer=observer))
        return await stack.enter_async_context(open_visiting_election(settings.timing, observer=observer))
    return None


@asynccontextmanager
async def open_shown_election(
    settings: Settings, named: Iterable[InstanceLock] = (), *, fail_fast: bool = False, secrets: Iterable[str] = ()
) -> AsyncIterator[Election]:
    """The same, in a process that shows how it is where `settings.health` says, and says so under the names that it has
    on this host. Under a keeper the keeper shows it.

    `secrets`: texts beside those of the settings that are never to be shown. Raises what makes it impossible, the
    address of the page too.
    """
    from cluster_lock.config.secret_settings import secret_texts
    from cluster_lock.health import Board, following, open_health
    from cluster_lock.health.peers import SessionPeers

    async with AsyncExitStack() as stack:
        if (election := await _kept(stack, settings)) is not None:
            for name in named:
                name.say(health=election.page)
            yield election
            return
        board = Board(settings.instance, backend=settings.backend, secrets=(*secret_texts(settings), *secrets))
        url = await stack.enter_async_context(open_health(board, settings.health))
        session = await stack.enter_async_context(
            open_session(settings, fail_fast=fail_fast, health=url, observer=board)
        )
        await stack.enter_async_context(following(board))
        for name in named:
            name.say(health=url)
        election = Election(session)
        board.peers = SessionPeers(session)
        board.pollers.source = lambda: election.reports()
        yield election
