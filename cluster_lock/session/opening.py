"""The session that the settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.observer import SILENT, Observer

from .session import Session

if TYPE_CHECKING:
    from cluster_lock.config import Settings


def open_session(
    settings: Settings, *, fail_fast: bool = False, health: str | None = None, observer: Observer = SILENT
) -> Session:
    """The session that `settings` describe: `async with open_session(load_settings()) as session: ...`.

    `health`: the address of this process's health page, for the records.
    Raises what keeps its driver from being made (ConfigError, DriverMissing).
    """
    from cluster_lock.config import open_driver

    return Session(
        open_driver(settings),
        instance=settings.instance,
        timing=settings.timing,
        health=health,
        config=settings.fingerprint,
        fencing_floor=settings.fencing_floor,
        fail_fast=fail_fast,
        observer=observer,
    )
