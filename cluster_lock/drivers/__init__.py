"""Drivers by name: a module of this folder, or somebody else's under the entry point group `cluster_lock.drivers`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

from cluster_lock.driver import Driver
from cluster_lock.errors import ConfigError

BUILTIN = ("file", "etcd", "consul", "redis", "postgres")
FOR_SEVERAL_HOSTS = "etcd, consul, redis or postgres"
GROUP = "cluster_lock.drivers"
_WITH_LIBRARY = ("etcd", "consul", "redis", "postgres")
"""Those of ours that need a client library, which is loaded late."""

DriverClass = Callable[..., Driver]
"""What makes a driver. Each has parameters of its own; `prefix` and `request_timeout` are keywords of all."""


def available() -> tuple[str, ...]:
    """The names that `driver_class` knows: our own first, then what is installed beside them."""
    others = {point.name for point in metadata.entry_points(group=GROUP)} - set(BUILTIN)
    return (*BUILTIN, *sorted(others))


def driver_class(name: str) -> DriverClass:
    """The class of the driver `name`. Nothing of another driver, or of its client library, is imported for it.

    Raises ConfigError for a name that nobody has, and DriverMissing if the client library is not there.
    """
    if name in (*BUILTIN, "memory"):  # memory is for tests, so no message offers it
        made: Any = getattr(import_module(f"{__name__}.{name}"), f"{name.capitalize()}Driver")
    else:
        made = _installed(name)
    return made  # type: ignore[no-any-return]


def why_unusable(name: str) -> str | None:
    """Why the driver `name` cannot be used here, and what to do about it; None: it can."""
    try:
        driver_class(name)
        if name in _WITH_LIBRARY:
            import_module(f"{__name__}.{name}").check_library()
    except ConfigError as error:
        return str(error)
    return None


def _installed(name: str) -> Any:
    points = metadata.entry_points(group=GROUP, name=name)
    if not points:
        names = available()
        close = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError([f"unknown backend {name!r}{hint}: there are {', '.join(names)}"])
    (point, *_) = points
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"the backend {name!r} ({point.value}) is installed but does not load: {error}"]) from error
