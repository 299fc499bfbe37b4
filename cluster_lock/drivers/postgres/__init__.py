"""Locks in PostgreSQL: a lease row, key rows that name their lease, and one function for each verb. The driver is
`PostgresDriver`, for everybody; the other modules are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.lazy import lazily

if TYPE_CHECKING:
    from .driver import PostgresDriver
    from .libpq import dsn_problem
    from .library import check_library
    from .schema import ddl, init

__all__ = ["PostgresDriver", "check_library", "ddl", "dsn_problem", "init"]

__getattr__ = lazily(
    __name__,
    {
        "PostgresDriver": "driver",
        "check_library": "library",
        "ddl": "schema",
        "dsn_problem": "libpq",
        "init": "schema",
    },
)
