"""The names on this host: each instance leads each lock once, and while it is restarted it has one successor.

Several bots may run under one instance name (the host's, by default), each as a program of its own.
"""

from __future__ import annotations

from pathlib import Path

from cluster_lock.process import InstanceLock
from cluster_lock.process.instance_lock import names_held

_BETWEEN, _NEXT = "+", "+next"
"""No instance has a + in its name."""


def slot(instance: str, lock: str | None, directory: Path | str | None) -> InstanceLock:
    """The name of what leads `lock` as `instance`. `lock`: None for what holds the name of the instance alone."""
    return InstanceLock(
        _name(instance, lock),
        directory,
        title=_title(instance, lock),
        stop=f"cluster-lock bot stop --instance {instance}",
        instead="start this one as another instance (--instance NAME, or CLUSTER_LOCK_INSTANCE) to have a standby",
    )


def successor(instance: str, lock: str | None, directory: Path | str | None) -> InstanceLock:
    """The name of the one that is about to take that place."""
    title = f"the successor of {_title(instance, lock)}"
    return InstanceLock(_name(instance, lock) + _NEXT, directory, title=title)


def locks_here(instance: str, directory: Path) -> set[str]:
    """The locks for which somebody holds a name of this instance."""
    begin = f"{instance}{_BETWEEN}"
    found = {name.removeprefix(begin).removesuffix(_NEXT) for name in names_held(directory) if name.startswith(begin)}
    return {lock for lock in found if "/" in lock}


def instances_here(directory: Path, lock: str | None = None) -> set[str]:
    """The instances of which somebody holds a name, or that of their place for `lock`. Programs and bots have names
    too, which are paths."""
    parts = [name.partition(_BETWEEN) for name in names_held(directory)]
    return {
        instance
        for instance, _, of in parts
        if not set(instance) & {*"/\\"} and (lock is None or of.removesuffix(_NEXT) == lock)
    }


def _name(instance: str, lock: str | None) -> str:
    return instance if lock is None else f"{instance}{_BETWEEN}{lock}"


def _title(instance: str, lock: str | None) -> str:
    return f"instance {instance!r}" + (f" of {lock}" if lock is not None else "")
