"""Serving a board as the setting `health` says it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from cluster_lock.errors import DriverMissing
from cluster_lock.host.listen_address import listen_address

from .board import Board

log = logging.getLogger("cluster_lock.health")


def page_after(setting: str, before: str | None) -> str | None:
    """The URL at which a page by this setting will be served when the one at `before` is not any more, for records that
    are written earlier; None if that cannot be told."""
    address = listen_address(setting)
    if address is None or before is None:
        return None
    return before if address.may_move or urlsplit(before).port == address.port else None


@asynccontextmanager
async def open_health(board: Board, setting: str) -> AsyncIterator[str | None]:
    """Serve `board` while the block runs. Gives the URL, for the records; None if there is none.

    `setting`: HOST:PORT or off. Raises ConfigError if the address is taken (the default one moves on instead), or if
    it was chosen and the libraries are missing; without them the default is off.
    """
    address = listen_address(setting)
    if address is None:
        yield None
        return
    try:
        from .server import HealthServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        if not address.may_move:
            raise DriverMissing("health needs aiohttp: pip install 'cluster-lock[health]', or health: off") from error
        log.info("no health page: it needs pip install 'cluster-lock[health]'")
        yield None
        return
    if address.is_open:
        log.warning(
            "health listens on %s, every address of this host: everybody who reaches it reads, without a login, who"
            " leads, and the hosts, process ids, errors and numbers of updates of all instances. Leave it on loopback,"
            " or let a firewall admit only probes and scrapers",
            address.text,
        )
    async with HealthServer(board, address) as server:
        yield server.url
