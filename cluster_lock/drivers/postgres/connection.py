"""One connection to the server that takes writes: what is asked on it, each request with a limit."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping, Sequence
from typing import Any

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, BackendUnavailable

from .errors import mapped
from .exchange import Exchange

OLDEST = 120000
"""Of the server, as it tells its version."""

_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""One that takes no descriptor of its own: there may be none left."""

_SET_UP = """
SELECT pg_backend_pid() AS pid,
       current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS shown,
       current_setting('server_encoding') AS encoding,
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('lock_timeout', $1, false),
       set_config('statement_timeout', $1, false),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'off' THEN 'local' ELSE current_setting('synchronous_commit') END, false)
"""


class Connection:
    """Made by `connect`. Whatever fails on it ends it: the next answer could be another request's."""

    def __init__(self, psycopg: Any, raw: Any, backend: str) -> None:
        self._psycopg, self._raw, self._backend = psycopg, raw, backend
        self._exchange = Exchange(psycopg, raw)
        self.pid = 0
        self.version = ""

    @classmethod
    async def connect(
        cls, psycopg: Any, given: Mapping[str, Any], backend: str, until: float, limit: float
    ) -> Connection:
        """`limit`: seconds after which the server gives up a request, too."""
        try:
            async with asyncio.timeout(max(0.0, until - clock.now())):
                raw = await psycopg.AsyncConnection.connect(**given)
        except TimeoutError as error:
            raise BackendUnavailable(f"{backend} did not answer in time: connect") from error
        except (psycopg.Error, OSError, ValueError) as error:  # the last: a name that is none, of IDNA
            raise mapped(psycopg, error, backend, "connect") from error
        connection = cls(psycopg, raw, backend)
        (told,) = await connection.ask(_SET_UP, (f"{max(1, int(limit * 1000))}ms",), until, "connect")
        connection.pid, connection.version = told["pid"], told["shown"]
        if told["version"] < OLDEST or told["encoding"] != "UTF8":
            connection.close()
            why = f"of encoding {told['encoding']}" if told["version"] >= OLDEST else f"PostgreSQL {told['shown']}"
            raise BackendRefused(f"{backend}: the database is {why}: PostgreSQL 12 or later with UTF8 is needed")
        return connection

    @property
    def is_behind_a_pooler(self) -> bool:
        """Did somebody else than the server's process greet us?"""
        return bool(self._raw.pgconn.backend_pid != self.pid)

    @property
    def is_fresh(self) -> bool:
        """Is it open, with nothing said since the last answer? A server that ends says so to who does not ask."""
        if self._raw.closed:
            return False
        with _Selector() as selector:
            selector.register(self._raw.fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    async def ask(self, query: str, values: Sequence[Any], until: float, doing: str) -> list[dict[str, Any]]:
        """The rows. A row that tells a `pid` must tell this one's."""
        # Behind a pooler what is prepared may be another session's; nor is it known yet, while `pid` is not.
        prepare = bool(values) and not self.is_behind_a_pooler
        try:
            async with asyncio.timeout(max(0.0, until - clock.now())):
                rows = await self._exchange.rows(query, values, prepare=prepare)
        except TimeoutError as error:
            self.close()
            raise BackendUnavailable(f"{self._backend} did not answer in time: {doing}") from error
        except (self._psycopg.Error, OSError) as error:
            self.close()
            raise mapped(self._psycopg, error, self._backend, doing) from error
        except BaseException:
            self.close()
            raise
        if self.pid and any(row.get("pid", self.pid) != self.pid for row in rows):
            self.close()
            raise pooled(self._backend)
        return rows

    async def hear(self, seconds: float) -> list[str]:
        """What is notified: as soon as there is something, or nothing after this time."""
        try:
            return await self._exchange.notified(seconds)
        except (self._psycopg.Error, OSError) as error:
            self.close()
            raise mapped(self._psycopg, error, self._backend, "listen") from error

    def close(self) -> None:
        """At once; nobody may be at work on it."""
        self._raw.pgconn.finish()


def pooled(backend: str) -> BackendRefused:
    return BackendRefused(
        f"{backend}: a pooler in transaction mode stands between us and the server, which forgets whom to notify:"
        " connect to the server itself, or to a pool in session mode"
    )


def pooled_session(backend: str) -> BackendRefused:
    return BackendRefused(
        f"{backend}: a pooler stands between us and the server, which may give our session, and the advisory locks that"
        " it has, to somebody else (also in session mode): connect to the server itself, or use the mode lease"
    )
