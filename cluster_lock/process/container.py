"""Which process a container ends with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

INITS = frozenset({"docker-init", "podman-init", "catatonit", "tini", "tini-static", "dumb-init"})
"""Names of a container's process 1 that ends when the first process that it has started does."""

_PROC = Path("/proc")


def ends_container(pid: int, proc: Path = _PROC) -> bool:
    """Does the container end with this process of it? It is process 1, or the one that an init was given to run. False
    outside of containers, and where it cannot be told."""
    if pid == 1:
        return True
    try:
        init = (proc / "1/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return False  # not Linux, or hidden
    # Later children are what processes that have ended have left to it.
    return init in INITS and pid == min(_children_of_init(proc), default=(0, 0))[1]


def _children_of_init(proc: Path) -> Iterator[tuple[int, int]]:
    """When each was started, in ticks, and its number."""
    for file in proc.glob("[0-9]*/stat"):
        try:
            # proc(5), fields 4 and 22. The name before them stands in brackets and may hold anything.
            fields = file.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == 1:
            yield int(fields[19]), int(file.parent.name)
