"""What we change in the environment for ourselves, and how it was: what we start gets what the user gave us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_lock.keeper.names import LOCALE

GRPC = "GRPC_VERBOSITY"
SILENT = "NONE"
"""gRPC's core writes lines of its own to stderr, past every logger; what matters in them is in our errors too."""
_COERCED = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})
"""What an interpreter sets LOCALE to."""


def given() -> dict[str, str]:
    """The environment for what we start: ours, without what the interpreter has put into it."""
    environ = dict(os.environ)
    if environ.get(LOCALE) in _COERCED:
        try:
            start = Path("/proc/self/environ").read_bytes().split(b"\0")  # as this process was started
        except OSError:
            return environ  # not Linux: what there was before is not known
        del environ[LOCALE]
        for each in start:
            if each.startswith(name := f"{LOCALE}=".encode()):
                environ[LOCALE] = os.fsdecode(each.removeprefix(name))
    return environ


@contextmanager
def quiet_grpc() -> Iterator[None]:
    """For the block in which gRPC begins, by its import or its first channel: it looks then, and never again.
    Somebody's own choice stands."""
    if GRPC in os.environ:
        yield
        return
    os.environ[GRPC] = SILENT
    try:
        yield
    finally:
        os.environ.pop(GRPC, None)
