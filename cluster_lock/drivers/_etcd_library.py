"""Finds the generated etcd stubs, or says in one sentence why they cannot be had.

Four distributions ship the module `etcd3`, each over the files of the others, and pip warns of none of it. Only the
generated `etcd3.etcdrpc` is used: `etcd3.client` shuts a slow endpoint out for 300 s, which loses every lease.
"""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Any, NamedTuple

from cluster_lock.errors import DriverMissing

_GOOD = "cslab-etcd3"
_DISTRIBUTIONS = (_GOOD, "etcd3", "etcd3-fc", "etcd3-fork")
_INSTALL = "pip install 'cluster-lock[etcd]'"


class Library(NamedTuple):
    grpc: Any
    """The package `grpc`, its `aio` loaded."""
    rpc: Any
    """The module `etcd3.etcdrpc`: messages and stubs."""


def load() -> Library:
    """Import what the driver needs. Raises DriverMissing."""
    installed = _installed()
    if len(installed) > 1:
        raise DriverMissing(
            f"{' and '.join(installed)} are installed and ship the same module etcd3, one over the other:"
            f" uninstall them all, then {_INSTALL}"
        )
    try:
        # etcd3 0.12 with the protobuf it needs raises a hundred DeprecationWarnings here, which `-W error` makes fatal.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import grpc.aio
            from etcd3 import etcdrpc
    except ImportError as error:
        raise DriverMissing(_why_not_importable(installed, error)) from error
    except TypeError as error:
        raise DriverMissing(_why_not_buildable(installed, error)) from error
    return Library(grpc, etcdrpc)


def _installed() -> list[str]:
    """Those of the distributions that are there, with their versions."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _why_not_importable(installed: list[str], error: ImportError) -> str:
    if not installed:
        return f"the etcd driver needs a client library that is not installed: {_INSTALL}"
    if (error.name or "").partition(".")[0] == "etcd3":
        # Uninstalling one of two distributions of a module deletes the files of the other.
        return (
            f"{installed[0]} is installed but its module etcd3 is not whole ({error}), as after uninstalling another"
            f" distribution of that module: pip install --force-reinstall --no-deps {installed[0].partition(' ')[0]}"
        )
    return f"the etcd driver cannot load {installed[0]}: {error}; {_INSTALL}"


def _why_not_buildable(installed: list[str], error: TypeError) -> str:
    name = installed[0] if installed else "the module etcd3"
    if "Descriptors cannot" in str(error):
        protobuf = metadata.version("protobuf")
        return (
            f"{name} cannot be loaded with protobuf {protobuf}: it was generated for protobuf < 3.21; uninstall it,"
            f" then {_INSTALL} (or keep it, then pip install 'cluster-lock[etcd3-legacy]')"
        )
    if "descriptor pool" in str(error) or "duplicate" in str(error):
        return (
            f"{name} cannot be loaded beside another etcd library that this process has imported (aetcd, etcd3aio,"
            f" pyetcd): both define etcd's messages; use one of them only ({str(error).splitlines()[0]})"
        )
    return f"the etcd driver cannot load {name}: {error}; {_INSTALL}"
