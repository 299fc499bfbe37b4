"""What a command has left whose keeper was killed together with the inits between the two.

Nobody is its parent any more that would end it. Each command has the mark of its keeper in its environment, which all
that it starts inherits: what carries the mark of a keeper that is gone is ended by the next keeper of the same scope
(the prefix in the backend) on this host, before that begins to work. What changed its environment is not found; nor is
anything elsewhere than on Linux.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cluster_lock.patience import Patience
from cluster_lock.process.instance_lock import process_started

from .init import PAUSE
from .names import MARK

log = logging.getLogger("cluster_lock.keeper")

HOPELESS = 10.0
"""Seconds after which what was killed will not end any more."""


def mark(scope: str) -> str:
    """Of this keeper: its number, since when it runs, where that number means something, and its scope."""
    return f"{os.getpid()} {process_started(os.getpid())} {_pid_namespace()} {scope}"


async def end_left_over(scope: str) -> None:
    """End what keepers of this scope that are gone have left on this host, and come back when it has ended."""
    if sys.platform == "linux":
        await asyncio.to_thread(_end, scope)


def _end(scope: str) -> None:
    seen: set[int] = set()
    patience = Patience()
    while found := set(_left_over(scope)):
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        seen |= found
        if patience.seconds() > HOPELESS:
            log.error("what a keeper has left that is gone cannot be ended: process %s", _listed(found))
            return
        select.select([], [], [], PAUSE)
    if seen:
        log.warning("ended what a keeper had left that is gone: process %s", _listed(seen))


def _listed(pids: set[int]) -> str:
    return ", ".join(map(str, sorted(pids)))


def _left_over(scope: str) -> Iterator[int]:
    here = [_pid_namespace(), scope]
    for name in os.listdir("/proc"):
        if not name.isdigit() or (found := _mark_of(name)) is None:
            continue
        keeper, started, *where = found
        if where == here and str(process_started(int(keeper))) != started:
            yield int(name)


def _mark_of(pid: str) -> list[str] | None:
    """None if it has none, has ended, or is another user's."""
    start = f"{MARK}=".encode()
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for each in environ:
        if each.startswith(start):
            parts = each.removeprefix(start).decode(errors="replace").split(" ", 3)
            return parts if len(parts) == 4 and parts[0].isdecimal() else None
    return None


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
