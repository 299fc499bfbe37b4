"""What the operator's commands have in common: how they open the backend, and how they say what they found."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .environment import quiet_grpc

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.driver import Driver

T = TypeVar("T")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object for programs")


def print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=2))


def seconds_from(text: str) -> float:
    """The type of an argument: "30", "1.5", "30s"."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError("must be a number of seconds")
    return seconds


def run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    with quiet_grpc():
        return asyncio.run(work)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Driver]:
    """The driver that the settings choose, open."""
    from cluster_lock.config import open_driver
    from cluster_lock.drivers.checked import CheckedDriver

    driver = open_driver(settings)
    await CheckedDriver(driver, settings.timing.request).open()
    try:
        yield driver
    finally:
        await driver.close()


def who_asks() -> str:
    """Who gives the command, for the log of a leader: "alice@ops-1"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name; OSError since Python 3.13
        user = "somebody"
        if sys.platform != "win32":
            user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def duration(seconds: float | None) -> str:
    """For people: "12 s", "3 min", "5 h", "2 d"."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"
