"""What a command that runs under a keeper finds in its environment, and what else both sides call by name."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cluster_lock.errors import ConfigError

FD = "CLUSTER_LOCK_FD"
"""For a command: the number of the pipe from the keeper, a line of JSON for each change of the lease; its end means
that the lock is lost. For a worker: the number of the door, and its process."""
NAME = "CLUSTER_LOCK_NAME"
"""The lock that it runs under."""
TOKEN = "CLUSTER_LOCK_FENCING_TOKEN"
"""The fencing token of its one term. A worker, which lives for several, has none."""
INSTANCE = "CLUSTER_LOCK_INSTANCE"
"""The instance that it is, where the command line has named one: a bot in it has that name too."""
MARK = "CLUSTER_LOCK_KEEPER"
"""Which keeper started it; see `left_over`."""

LOCALE = "LC_CTYPE"
"""Not of ours: an interpreter that finds itself in the C locale sets it, also for all that it starts (PEP 538)."""

_claimed = False


def under_keeper(environ: Mapping[str, str] = os.environ) -> bool:
    """Was this process started by a keeper that leads for it, and has it not asked that one yet? Not what a worker has
    started, which finds the same in its environment; but what a worker has put in its own place, which is the same
    process."""
    if _claimed or FD not in environ or TOKEN in environ:
        return False
    process = environ[FD].partition(":")[2]
    return process in ("", str(os.getpid()))


def visits_keeper(environ: Mapping[str, str] = os.environ) -> bool:
    """Does this process run under `cluster-lock run`? It may lead locks of its own then, with what that one holds."""
    return FD in environ and TOKEN in environ


def claim() -> int:
    """The number of the door, which is this process's from now on. Raises ConfigError if there is none."""
    global _claimed
    number, _, process = os.environ[FD].partition(":")
    if process not in ("", str(os.getpid())):
        raise no_keeper(number, "it is that of the process which has started this one")
    if not number.isascii() or not number.isdecimal():
        raise no_keeper(number, "that is no number of a pipe")
    os.environ[FD] = f"{number}:{os.getpid()}"
    _claimed = True
    return int(number)


def no_keeper(number: object, why: str) -> ConfigError:
    """There is no keeper at the other end of the pipe with this number."""
    what = f"{FD}={str(number)[:20]}: no pipe from a keeper ({why})"
    return ConfigError([f"{what}. Only a keeper sets this variable: unset it to lead without one."])
