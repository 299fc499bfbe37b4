"""Callbacks for the moment before this process replaces itself by another program (`os.execv` and the like).

Many programs restart themselves in this way. It ends everything that ran here, and nothing else announces it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger("cluster_lock")

_callbacks: dict[object, Callable[[], None]] = {}
_listens = False


def at_exec(callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` before each `os.exec*` of this process, in the thread and the context that calls exec, the latest
    callback first. The function that is returned takes it back. A callback must not wait, and what it says must be true
    even if the exec fails."""
    global _listens
    if not _listens:
        sys.addaudithook(_hear)  # there is no way to take a hook away, so there is one, for all
        _listens = True
    key = object()
    _callbacks[key] = callback

    def take_back() -> None:
        _callbacks.pop(key, None)

    return take_back


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "os.exec":
        return
    for callback in reversed(list(_callbacks.values())):
        try:
            callback()
        except Exception:
            log.exception("what was to be done before the program is replaced failed")  # it is replaced all the same


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_callbacks.clear)  # a child that execs is the end of nothing of ours
