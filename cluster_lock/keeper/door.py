"""How a worker comes to its pipe from the keeper.

The keeper gives it a door, a socket that stays open in a program that the worker puts in its own place (os.execv). Each
program that the process becomes makes a pipe of its own and hands one end through the door. So nothing that the one
before had sent, or was sent, is in the way, and the end of its pipe is the end of that program.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

from cluster_lock.host.at_exec import at_exec

from .left_over import keeper_above
from .names import FD, claim, no_keeper

_KNOCK = b'{"event":"knock"}\n'
"""A line, so that a keeper which knows of no doors takes it for one that means nothing."""


def knock() -> socket.socket:
    """The worker's: a new pipe, whose other end the keeper gets. Once for a program; `under_keeper()` is then false.
    Raises ConfigError if there is no keeper's door."""
    number = claim()
    try:
        with socket.socket(fileno=os.dup(number)) as door:
            if door.family != socket.AF_UNIX or door.type != socket.SOCK_STREAM:
                raise no_keeper(number, "a socket of another kind")
            ours = _knock_at(door)
        # For nothing else that this process starts.
        os.set_inheritable(number, False)
    except (OSError, OverflowError) as error:
        raise no_keeper(number, getattr(error, "strerror", None) or "it cannot be used") from error
    at_exec(lambda: os.set_inheritable(number, True))
    return ours


def visit() -> socket.socket | None:
    """A visitor's, as often as it likes: the same, at the pipe of `cluster-lock run`. None if it has not got that pipe:
    whatever started it has closed it, and the number is that of something else."""
    keeper = keeper_above()
    try:
        with socket.socket(fileno=os.dup(int(os.environ[FD].partition(":")[0]))) as door:
            if keeper is None or made_by(door) != keeper:
                return None
            return _knock_at(door)
    except (OSError, OverflowError, ValueError):
        return None


def _knock_at(door: socket.socket) -> socket.socket:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            socket.send_fds(door, [_KNOCK], [theirs.fileno()])
    except OSError:
        ours.close()
        raise
    return ours


def opened(door: socket.socket) -> socket.socket | None:
    """The keeper's, when there is something to read: the end that a worker has handed over; None if nobody is there any
    more, or somebody who hands over nothing."""
    try:
        _, numbers, _, _ = socket.recv_fds(door, len(_KNOCK), 1)
    except OSError:  # it was killed with something unread
        return None
    return socket.socket(fileno=numbers[0]) if numbers else None


def made_by(pipe: socket.socket) -> int | None:
    """The number of the process that has made it and handed over this end; None where nobody says."""
    if sys.platform != "linux":
        return None
    pid: int = struct.unpack("3i", pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


def is_ending(pid: int | None) -> bool:
    """Is this process on its way to its end, or there already? Told by its memory, which it gives up before it closes
    what it has open. False where nobody says."""
    if sys.platform != "linux":
        return False
    try:
        return Path(f"/proc/{pid}/statm").read_bytes().split()[0] == b"0"
    except OSError:
        return True
