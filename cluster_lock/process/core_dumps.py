"""A core dump holds all that was in a process's memory: the bot's token, the backend's password."""

from __future__ import annotations

import sys


def no_core_dumps() -> int | None:
    """From now on this process, and what it starts, leaves none. The limit before that (bytes; -1: none), for a program
    that shall have it again; None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_CORE)
    # For Linux 0 means that no file is written, and a crash handler behind a pipe (core_pattern) gets it all the same.
    # With 1 byte there is neither: core(5) is silent about it, fs/coredump.c is not.
    least = 1 if sys.platform == "linux" and most != 0 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))
    return before
