"""Processes that may end while somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def name_of(process: psutil.Process) -> str:
    """Its name; empty when it is gone."""
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def command_of(process: psutil.Process) -> str:
    """Its command and arguments, with blanks between them; empty when it is gone, also as a zombie."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def runs(process: psutil.Process) -> bool:
    """Whether it is there and no zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def below(pid: int) -> list[psutil.Process]:
    """All that runs below it; nothing when it is gone."""
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def processes(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of these numbers that are there."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def kill(them: Iterable[psutil.Process]) -> None:
    """Kill those of them that are there."""
    for each in them:
        with suppress(psutil.NoSuchProcess):
            each.kill()
