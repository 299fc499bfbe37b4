"""Leaders and standbys on a real backend, beside a test that calls commands: they live in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from support.aio import until
from support.backends import Backend
from support.stores import open_session

from cluster_lock.cli import main
from cluster_lock.election import Election, Term
from cluster_lock.session import Session
from cluster_lock.values import Timing

T = TypeVar("T")

TIMING = Timing(ttl=4.0, margin=1.0, stop_time=0.5, settle=0.25, invite=1.5, drain=1.0, cancel_grace=0.5)
"""Fast, for servers with fast timing; but one that is invited on a busy machine gets the time to answer."""


@dataclass
class Member:
    """One contender. `work`: how long it drains."""

    session: Session
    election: Election
    work: float = 0.0
    terms: list[Term] = field(default_factory=list)
    leading: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    """The work under the last term has ended."""

    async def body(self, term: Term) -> None:
        self.terms.append(term)
        self.stopped.clear()
        self.leading.set()
        try:
            await term.wait_step_down()
            await asyncio.sleep(self.work)
        finally:
            self.leading.clear()
            self.stopped.set()


class Company:
    """Contends on `backend` under `prefix`; `config` is the file for commands on the same locks."""

    def __init__(self, backend: Backend, prefix: str, folder: Path, timing: Timing = TIMING) -> None:
        self.backend, self.prefix, self.timing = backend, prefix, timing
        self.config = write_config(folder / "cluster-lock.yaml", backend, prefix, timing)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    def do(self, work: Coroutine[Any, Any, T], timeout: float = 20.0) -> T:
        """The result of `work`, done on the members' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """What `context` gives; it is left after all that joins later has ended."""
        return self.do(self._stack.enter_async_context(context))

    def join(self, instance: str, *names: str, work: float = 0.0, **options: Any) -> Member:
        """One more contender for these locks. Returns when it leads the first of them, or stands by for it."""
        return self.do(self._join(instance, names or ("x",), work, options))

    async def _join(self, instance: str, names: tuple[str, ...], work: float, options: dict[str, Any]) -> Member:
        session = open_session(self.backend, self.prefix, instance, self.timing, **options)
        await self._stack.enter_async_context(session)
        member = Member(session, Election(session), work)
        self._tasks += [asyncio.create_task(member.election.lead(name, member.body)) for name in names]

        async def is_there() -> bool:
            standbys = await session.driver.scan("standby/")
            return member.leading.is_set() or any(entry.name == session.context.contender.key for entry in standbys)

        await until(is_there)
        return member

    def command(self, *arguments: str) -> int:
        """The exit code of `cluster-lock ARGUMENTS`, with our settings."""
        return main([*arguments, "--config", str(self.config)])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()


def write_config(path: Path, backend: Backend, prefix: str, timing: Timing = TIMING, **more: Any) -> Path:
    """A configuration for commands."""
    times = ("ttl", "margin", "stop_time", "settle", "invite", "drain", "cancel_grace", "stall_limit")
    lock = {name: f"{getattr(timing, name):g}s" for name in times}
    content = {"backend": backend.name, "prefix": prefix, "lock": lock, backend.name: backend.section, **more}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
