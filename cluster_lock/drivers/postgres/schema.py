"""The schema `cluster_lock`: is it there, and how it comes there."""

from __future__ import annotations

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
    to_regclass('cluster_lock.server')::text], NULL) AS parts,
    (SELECT count(DISTINCT proname) FROM pg_proc
        WHERE pronamespace = to_regnamespace('cluster_lock') AND proname = ANY ($1)) AS functions,
    current_database() AS database, current_user AS role
"""
_ALL = 5


@cache
def ddl() -> str:
    """What makes the schema, for who must not let programs do it: in one transaction, as often as one likes."""
    return (files(__package__) / "schema.sql").read_text(encoding="utf-8")


async def ensure(connection: Connection, backend: str, until: float) -> bool:
    """See that the schema is there, whole, and of our version; make it if it is not. Was it made?

    Raises PermissionRefused that names the right, BackendRefused for a schema of another version.
    """
    functions = sorted(set(re.findall(r"CREATE OR REPLACE FUNCTION cluster_lock\.(\w+)", ddl())))
    (told,) = await connection.ask(_PARTS, (functions,), until, "look for the schema cluster_lock")
    made = len(told["parts"]) < _ALL or told["functions"] < len(functions)
    if made:
        await init(connection, backend, until, told["role"], told["database"])
    rows = await connection.ask("SELECT version FROM cluster_lock.server", (), until, "read the schema's version")
    if [row["version"] for row in rows] != [VERSION]:
        raise BackendRefused(
            f"{backend}: the schema cluster_lock is of version {', '.join(str(row['version']) for row in rows) or '?'}"
            f" and this is cluster-lock for version {VERSION}"
        )
    return made


async def init(connection: Connection, backend: str, until: float, role: str, database: str) -> None:
    """Make what is missing."""
    script = f"BEGIN; SELECT pg_advisory_xact_lock({_TURN}); {ddl()} COMMIT;"
    try:
        await connection.ask(script, (), until, "make the schema cluster_lock")
    except PermissionRefused as error:
        raise PermissionRefused(
            f"{backend}: the schema cluster_lock is not there, and {role} may not make it: it lacks CREATE ON DATABASE"
            f" {database}; let its owner run 'cluster-lock init-db'"
        ) from error
