"""A PostgreSQL server that is used as if it had run for long."""

from __future__ import annotations

from cluster_lock.drivers import postgres
from cluster_lock.testing.servers import PostgresServer


def set_up_long_ago(server: PostgresServer) -> None:
    """Make the schema, and let the time be over in which nobody gets a lease."""
    server.sql(f"BEGIN; {postgres.ddl()} COMMIT")
    server.sql("UPDATE cluster_lock.server SET base = base - interval '1 hour'")
