"""The election of this process, whoever holds its session."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cluster_lock.election import Election
from cluster_lock.observer import SILENT, Observer
from cluster_lock.session import open_session

from .names import under_keeper

if TYPE_CHECKING:
    from cluster_lock.config import Settings


@asynccontextmanager
async def open_election(
    settings: Settings, *, fail_fast: bool = False, health: str | None = None, observer: Observer = SILENT
) -> AsyncIterator[Election]:
    """The election that `settings` describe: on a session of its own, or, in a process that a keeper started, on the
    keeper's. Raises what makes it impossible.

    `fail_fast`, `health`: as for a Session; under a keeper they are the keeper's. `observer`: told of every transition.
    """
    if sys.platform != "win32" and under_keeper():
        from .worker import open_worker_election

        async with open_worker_election(settings.timing, observer=observer) as election:
            yield election
    else:
        async with open_session(settings, fail_fast=fail_fast, health=health, observer=observer) as session:
            yield Election(session)
