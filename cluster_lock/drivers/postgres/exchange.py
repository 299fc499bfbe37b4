"""Requests and answers on one open connection, one at a time, in the calls of libpq as psycopg's module `pq` has them.

psycopg's own cursors answer a cancellation by asking the server to cancel, for 5 seconds, and then wait for the answer
for 5 more (measured on a server that was stopped: 10.0 s). Here it ends the exchange at once, and what is left of the
answer stands in the connection: whoever cancels must close it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

_BINARY, _TEXT = 1, 0


class Exchange:
    """`raw`: an open connection of psycopg, which is used for nothing else any more. What fails raises psycopg's
    errors."""

    def __init__(self, psycopg: Any, raw: Any) -> None:
        self._psycopg, self._libpq = psycopg, raw.pgconn
        self._adapting = psycopg.adapt.Transformer(raw)
        self._prepared: dict[str, bytes] = {}

    async def rows(self, query: str, values: Sequence[Any], *, prepare: bool) -> list[dict[str, Any]]:
        """What the statement gives, with `$1` and so on for the values. Without values it may be a script, and its last
        statement gives the rows. `prepare`: the server remembers the statement under this connection."""
        told, libpq = query.encode(), self._libpq
        given, formats = [_given(value) for value in values], [_format(value) for value in values]
        if prepare:
            name = self._prepared.get(query)
            if name is None:
                name = f"s{len(self._prepared)}".encode()
                await self._answer(partial(libpq.send_prepare, name, told))
                self._prepared[query] = name
            result = await self._answer(partial(libpq.send_query_prepared, name, given, formats))
        elif values:
            result = await self._answer(partial(libpq.send_query_params, told, given, None, formats))
        else:
            result = await self._answer(partial(libpq.send_query, told))
        return self._loaded(result)

    async def notified(self, seconds: float) -> list[str]:
        """What is notified: as soon as there is something, or nothing after this time."""
        found = self._found()
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ready()
            self._libpq.consume_input()
            found = self._found()
        return found

    async def _answer(self, send: Callable[[], None]) -> Any:
        """The last result."""
        libpq = self._libpq
        send()
        while libpq.flush():  # more than the socket takes
            await self._ready(writing=True)
            libpq.consume_input()
        last = None
        while True:
            while libpq.is_busy():
                await self._ready()
                libpq.consume_input()
            result = libpq.get_result()
            if result is None:
                break
            last = result if last is None or not self._is_failure(last) else last
        if self._is_failure(last):
            raise self._error(last)
        return last

    async def _ready(self, *, writing: bool = False) -> None:
        """Return when there is something to read, or room to write."""
        loop, socket = asyncio.get_running_loop(), self._libpq.socket
        ready = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(socket, tell)
        if writing:
            loop.add_writer(socket, tell)
        try:
            await ready
        finally:
            # Before anybody closes the socket: its number may be another one's next.
            loop.remove_reader(socket)
            if writing:
                loop.remove_writer(socket)

    def _found(self) -> list[str]:
        return [notice.extra.decode(errors="replace") for notice in iter(self._libpq.notifies, None)]

    def _is_failure(self, result: Any) -> bool:
        good = self._psycopg.pq.ExecStatus
        return result is None or result.status not in (good.COMMAND_OK, good.TUPLES_OK, good.EMPTY_QUERY)

    def _error(self, result: Any) -> Exception:
        errors, fields = self._psycopg.errors, self._psycopg.pq.DiagnosticField
        if result is None:
            return self._psycopg.OperationalError("the connection is lost")  # type: ignore[no-any-return]
        code = (result.error_field(fields.SQLSTATE) or b"").decode()
        text = result.error_field(fields.MESSAGE_PRIMARY) or result.error_message or b"the connection is lost"
        try:
            kind = errors.lookup(code)
        except KeyError:  # of the client itself, or newer than this psycopg
            kind = self._psycopg.OperationalError
        return kind(text.decode(errors="replace"))  # type: ignore[no-any-return]

    def _loaded(self, result: Any) -> list[dict[str, Any]]:
        columns = [(result.fname(at).decode(), self._loader(result, at)) for at in range(result.nfields)]
        return [
            {
                name: None if (value := result.get_value(row, at)) is None else load(value)
                for at, (name, load) in enumerate(columns)
            }
            for row in range(result.ntuples)
        ]

    def _loader(self, result: Any, at: int) -> Callable[[bytes], Any]:
        form = self._psycopg.pq.Format(result.fformat(at))
        return self._adapting.get_loader(result.ftype(at), form).load  # type: ignore[no-any-return]


def _given(value: object) -> bytes | None:
    """As the server reads it where it knows the type from the statement."""
    match value:
        case None | bytes():
            return value
        case str():
            return value.encode()
        case bool():
            return b"t" if value else b"f"
        case int() | float():
            return str(value).encode()
        case [*texts]:
            quoted = (str(text).replace("\\", "\\\\").replace('"', '\\"') for text in texts)
            return ("{" + ",".join(f'"{text}"' for text in quoted) + "}").encode()
    raise TypeError(f"no {type(value).__name__} here")


def _format(value: object) -> int:
    """Text is binary, too: libpq would end it at a zero byte, and the server refuses one."""
    return _BINARY if isinstance(value, str | bytes) else _TEXT
