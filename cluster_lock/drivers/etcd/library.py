"""Finds the generated etcd stubs, or says in one sentence why they cannot be had.

Four distributions ship the module `etcd3`, each over the files of the others, and pip warns of none of it. Only the
generated `etcd3.etcdrpc` is used: `etcd3.client` shuts a slow endpoint out for 300 s, which loses every lease.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from cluster_lock.errors import DriverMissing

_GOOD = "cslab-etcd3"
_DISTRIBUTIONS = (_GOOD, "etcd3", "etcd3-fc", "etcd3-fork")
_INSTALL = "pip install 'cluster-lock[etcd]'"
_FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
_OFF = frozenset({"0", "f", "false", "n", "no"})
"""What gRPC's core takes for no."""


class Library(NamedTuple):
    grpc: Any
    """The package `grpc`, its `aio` loaded."""
    rpc: Any
    """The module `etcd3.etcdrpc`: messages and stubs."""


@cache
def load() -> Library:
    """Import what the driver needs. Raises DriverMissing."""
    installed = _installed()
    if len(installed) > 1:
        raise DriverMissing(
            f"{' and '.join(installed)} are installed and ship the same module etcd3, one over the other:"
            f" uninstall them all, then {_INSTALL}"
        )
    try:
        _warn_if_forks_crash()
        # etcd3 0.12 with the protobuf it needs raises a hundred DeprecationWarnings here, which `-W error` makes fatal.
        with _no_fork_support(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import grpc.aio
            from etcd3 import etcdrpc
    except ImportError as error:
        raise DriverMissing(_why_not_importable(installed, error)) from error
    except TypeError as error:
        raise DriverMissing(_why_not_buildable(installed, error)) from error
    return Library(grpc, etcdrpc)


def check_library() -> None:
    """Raises DriverMissing if the driver cannot be used here."""
    load()


def _warn_if_forks_crash() -> None:
    """Where gRPC has its fork support already, or is told to have it, all that can be done is to say so."""
    chosen = os.environ.get(_FORK_SUPPORT)
    if chosen.lower() in _OFF if chosen is not None else "grpc" not in sys.modules:
        return
    why = f"{_FORK_SUPPORT}={chosen} is set" if chosen is not None else "grpc was imported before the etcd driver"
    warnings.warn(
        f"{why}: a process that is forked from this one (multiprocessing, a ProcessPoolExecutor) may crash; set"
        f" {_FORK_SUPPORT}=0 in the environment",
        RuntimeWarning,
        stacklevel=3,
    )


@contextmanager
def _no_fork_support() -> Iterator[None]:
    """For the time of its import, which is when gRPC reads it: gRPC is to do nothing when this process forks.

    What it does then is meant for its synchronous client. Beside its asyncio client, which has threads at work, a third
    of the children of `multiprocessing` died of it (SIGSEGV), and so did every pool that they belonged to. A child that
    leaves gRPC alone, as ours do, needs none of it. Somebody's own choice stands.
    """
    if _FORK_SUPPORT in os.environ:
        yield
        return
    os.environ[_FORK_SUPPORT] = "0"
    try:
        yield
    finally:
        del os.environ[_FORK_SUPPORT]  # what this process starts chooses for itself


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
