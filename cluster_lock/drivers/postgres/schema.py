"""The schema `cluster_lock`: is it there, and how it comes there."""

from __future__ import annotations

import enum
import re
from functools import cache
from importlib.resources import files

from cluster_lock.errors import BackendRefused, PermissionRefused

from .connection import Connection

VERSION = 1
_TURN = 7163514
"""Of the advisory lock under which the schema is made, by one at a time."""

_PARTS = """
SELECT array_remove(ARRAY[to_regclass('cluster_lock.token')::text, to_regclass('cluster_lock.space')::text,
    to_regclass('cluster_lock.lease')::text, to_regclass('cluster_lock.key')::text,
    to_regclass('cluster_lock.server')::text, (SELECT conname::text FROM pg_constraint
        WHERE conrelid = to_regclass('cluster_lock.key') AND conname = 'of_a_turn')], NULL) AS parts,
    (SELECT count(DISTINCT proname) FROM pg_proc
        WHERE pronamespace = to_regnamespace('cluster_lock') AND proname = ANY ($1)) AS functions,
    current_database() AS database, current_user AS role
"""
_ALL = 6


@cache
def ddl() -> str:
    """What makes the schema, for who must not let programs do it: in one transaction, as often as one likes."""
    return (files(__package__) / "schema.sql").read_text(encoding="utf-8")


class Found(enum.Enum):
    """Of the schema, by who looked."""

    NOTHING = enum.auto()
    SOME = enum.auto()
    """Enough to look at, unless a part is missing that is asked for."""
    WHOLE = enum.auto()


async def find(connection: Connection, backend: str, until: float, *, make: bool) -> Found:
    """What is there of the schema, and that it is of our version. `make`: what was missing is there after it.

    Raises PermissionRefused that names the right, BackendRefused for a schema of another version.
    """
    functions = sorted(set(re.findall(r"CREATE OR REPLACE FUNCTION cluster_lock\.(\w+)", ddl())))
    (told,) = await connection.ask(_PARTS, (functions,), until, "look for the schema cluster_lock")
    found = Found.SOME if told["parts"] else Found.NOTHING
    if len(told["parts"]) == _ALL and told["functions"] == len(functions):
        found = Found.WHOLE
    elif make:
        await init(connection, backend, until, told["role"], told["database"])
    elif found is Found.NOTHING:
        return found
    rows = await connection.ask("SELECT version FROM cluster_lock.server", (), until, "read the schema's version")
    if [row["version"] for row in rows] != [VERSION]:
        raise BackendRefused(
            f"{backend}: the schema cluster_lock is of version {', '.join(str(row['version']) for row in rows) or '?'}"
            f" and this is cluster-lock for version {VERSION}"
        )
    return found


async def init(connection: Connection, backend: str, until: float, role: str, database: str) -> None:
    """Make what is missing."""
    script = f"BEGIN; SELECT pg_advisory_xact_lock({_TURN}); {ddl()} COMMIT;"
    try:
        await connection.ask(script, (), until, "make the schema cluster_lock")
    except PermissionRefused as error:
        raise PermissionRefused(
            f"{backend}: the schema cluster_lock is not there, or not whole, and {role} may not make it:"
            f" it lacks CREATE ON DATABASE {database}; let its owner run 'cluster-lock init-db'"
        ) from error
