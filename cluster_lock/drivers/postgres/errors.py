"""From psycopg's errors to ours."""

from __future__ import annotations

from typing import Any

from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ClusterLockError,
    LeaseExpired,
    PermissionRefused,
)
from cluster_lock.values import Lease


class SchemaGone(BackendUnavailable):
    """A table or function of ours is not there any more."""


class NotGiven(BackendUnavailable):
    """The server has said why nobody gets the lock yet, so nothing was applied."""


def shown(lease: Lease) -> str:
    return f"lease {lease.id} of {lease.holder}"


def lease_gone(backend: str, lease: Lease) -> LeaseExpired:
    return LeaseExpired(f"{backend}: {shown(lease)} is gone")


_GRANTS = (
    "what it needs: GRANT USAGE ON SCHEMA cluster_lock, SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA"
    " cluster_lock and USAGE ON SEQUENCE cluster_lock.token"
)
# While it connects, libpq tells no code, only the server's words.
_NOT_LET_IN = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "certificate authentication failed",
    "connection requires a valid client certificate",
    "is not permitted to log in",
    "permission denied for database",
)
_READ_ONLY = ("session is read-only", "server is in hot standby mode", "the database system is in recovery mode")
_WRONG = (
    "server does not support SSL",
    "certificate verify failed",
    "does not match host name",
    "root certificate",
    "invalid min_protocol_version value",
    "invalid max_protocol_version value",
    # Of what the variables of libpq set in our session.
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "invalid command-line argument",
)


def mapped(psycopg: Any, error: Exception, backend: str, doing: str) -> ClusterLockError:
    """Ours for one of psycopg's. The text has the server's first line."""
    errors = psycopg.errors
    said = str(error).strip().splitlines()
    text = said[0] if said else type(error).__name__
    match error:
        case errors.InsufficientPrivilege():
            return PermissionRefused(f"{backend}: {doing}: {text}; {_GRANTS}")
        case errors.ReadOnlySqlTransaction():
            return BackendUnavailable(f"{backend}: {doing}: this server takes no writes: it is a replica, or read-only")
        case errors.UndefinedTable() | errors.UndefinedFunction() | errors.InvalidSchemaName():
            return SchemaGone(
                f"{backend}: {doing}: {text}: a part of the schema cluster_lock is gone; the next lease, or renewal of"
                " one, makes it anew"
            )
        case errors.LockNotAvailable() | errors.QueryCanceled():
            return BackendUnavailable(f"{backend}: {doing}: {text}")
        case errors.ProgramLimitExceeded() if "NOTIFY" in text:  # a session that listens has not read for long
            return BackendUnavailable(f"{backend}: {doing}: {text}")
        case errors.DataError() | errors.ProgramLimitExceeded() | errors.UndefinedColumn():
            return BackendRefused(f"{backend}: {doing}: {text}")
        case _ if any(words in str(error) for words in _NOT_LET_IN):
            return PermissionRefused(f"{backend}: {text}")
        case _ if any(words in str(error) for words in _READ_ONLY):
            return BackendUnavailable(f"{backend}: no server here takes writes: a replica, or read-only ({text})")
        case _ if any(words in str(error) for words in _WRONG) or ("database " in text and "does not exist" in text):
            return BackendRefused(f"{backend}: {text}")
    return BackendUnavailable(f"{backend}: {doing}: {text}")
