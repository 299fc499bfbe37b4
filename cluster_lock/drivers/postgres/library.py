"""Finds psycopg, or says in one sentence why it cannot be had."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from typing import Any

from cluster_lock.errors import DriverMissing

_INSTALL = "pip install 'cluster-lock[postgres]'"
_OLDEST = (3, 3, 9)
"""In older ones a cancellation on a silent server may never end; they are not tested."""


@cache
def load() -> Any:
    """The module `psycopg`. Raises DriverMissing."""
    try:
        version = metadata.version("psycopg")
        import psycopg
    except metadata.PackageNotFoundError as error:
        raise DriverMissing(f"the postgres driver needs a client library that is not installed: {_INSTALL}") from error
    except ImportError as error:  # psycopg without libpq
        raise DriverMissing(f"psycopg is installed but does not load ({error}): {_INSTALL}") from error
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        raise DriverMissing(f"the postgres driver needs psycopg {needed} or later, and {version} is here: {_INSTALL}")
    return psycopg


def check_library() -> None:
    """Raises DriverMissing if the driver cannot be used here."""
    load()
