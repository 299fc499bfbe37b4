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
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cluster_lock import clock
from cluster_lock.errors import NotStarted
from cluster_lock.host.patience import Patience
from cluster_lock.process.instance_lock import process_started

from .init import PAUSE, parent
from .names import MARK

log = logging.getLogger("cluster_lock.keeper")

HOPELESS = 10.0
"""Seconds after which what was killed will not end any more."""
STRANGERS = 1.0
"""Seconds for what another user has started since we look: anybody may write a mark into an environment, again and
again. What our own user has, or what was there before, has until HOPELESS."""
_MARK = re.compile(r"([0-9]{1,10}) ([0-9]{1,20}) (\S*) (.*)", re.ASCII | re.DOTALL)


def mark(scope: str) -> str:
    """Of this keeper: its number, since when it runs, where these mean something, and its scope."""
    return f"{os.getpid()} {process_started(os.getpid())} {_namespaces()} {scope}"


def keeper_above() -> int | None:
    """The keeper that this process runs under, and whose end will be its own too; None if there is none."""
    line = [os.getpid()]
    while above := parent(str(line[-1])):
        line.append(above)
    for pid in line:  # each, as one may have an environment of its own
        found = _mark_of(str(pid))
        if found is not None and int(found[0]) in line and _is_of_living(found):
            return int(found[0])
    return None


async def end_left_over(scope: str) -> None:
    """End what keepers of this scope that are gone have left on this host, and come back when it has ended. Raises
    NotStarted where the system does not let us look: then nothing may start beside it."""
    if sys.platform == "linux":
        try:
            await asyncio.to_thread(_end, scope)
        except OSError as error:
            raise NotStarted(f"cannot look for what a keeper has left that is gone: {error.strerror}") from error


def _end(scope: str) -> None:
    seen: set[int] = set()
    began, patience = clock.now(), Patience()
    while found := set(_left_over(scope)):
        if patience.seconds() > STRANGERS:
            found = {pid for pid in found if _is_ours(pid) or not _is_younger(pid, began)}
        if not found:
            break
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
    for name in os.listdir("/proc"):
        if not name.isdigit() or (found := _mark_of(name)) is None:
            continue
        if found[2:] != (_namespaces(), scope) or _is_of_living(found):
            continue
        if os.geteuid() == 0 or _is_ours(int(name)):  # what is another user's only root can end
            yield int(name)


def _mark_of(pid: str) -> tuple[str, ...] | None:
    """None if it has none, has ended, or is another user's."""
    start = f"{MARK}=".encode()
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    for each in environ:
        if each.startswith(start):
            found = _MARK.fullmatch(each.removeprefix(start).decode(errors="replace"))
            return found.groups() if found is not None else None
    return None


def _is_of_living(found: tuple[str, ...]) -> bool:
    """Does the keeper with this mark still run, if its number means something here?"""
    return found[2] == _namespaces() and str(process_started(int(found[0]))) == found[1]


def _is_ours(pid: int) -> bool:
    """By the user who started it, which no setuid program changes."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return status.partition(b"\nUid:")[2].split()[:1] == [b"%d" % os.getuid()]


def _is_younger(pid: int, moment: float) -> bool:
    return (process_started(pid) or 0) > moment * os.sysconf("SC_CLK_TCK")


def _namespaces() -> str:
    """In which a number means this process, and a moment since the start of the host this one."""
    return "".join(_namespace(kind) for kind in ("pid", "time"))


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""
