"""A driver between you and a driver: slow, forgetful, unreachable, or saying things twice, as your script wants it.

    driver = FaultyDriver(MemoryDriver(backend))
    driver.next("renew", slow_request(3))       # the next renewal reaches the backend three seconds late
    driver.next("acquire", LOST_REPLY)          # applied, and nobody is told
    driver.down()                               # until up(): nothing reaches the backend
    await driver.deliver_again("release")       # a copy of the last release arrives now

A request that is under way goes on when its caller gave up or was cancelled, as it does on a network: what timed out
may still be applied, later. `calls` counts what was asked for, by verb.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cluster_lock.driver import Driver
from cluster_lock.errors import BackendUnavailable, ClusterLockError
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits

Answer = TypeVar("Answer")

VERBS = frozenset(
    {"grant_lease", "renew", "revoke", "acquire", "release", "transfer", "announce", "withdraw", "read", "scan"}
    | {"wait_changed"}
)


class Gate:
    """Where a request is held up until it is let go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        """Set when the request is there."""
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let the request go on to the backend."""
        self._open.set()

    async def pass_through(self) -> None:
        self.arrived.set()
        await self._open.wait()


@dataclass(frozen=True, slots=True)
class DriverFault:
    """What becomes of one request. Durations are seconds. Make one with the functions below."""

    request_takes: float = 0.0
    reply_takes: float = 0.0
    request_lost: bool = False
    reply_lost: bool = False
    error: Exception | None = None
    gate: Gate | None = None


def slow_request(seconds: float) -> DriverFault:
    """The backend gets the request so much later; the caller may have given up by then."""
    return DriverFault(request_takes=seconds)


def slow_reply(seconds: float) -> DriverFault:
    """The backend answers at once, and the answer comes so much later."""
    return DriverFault(reply_takes=seconds)


def refuse(error: Exception) -> DriverFault:
    """The verb raises `error`, and the backend sees nothing."""
    return DriverFault(error=error)


LOST_REQUEST = DriverFault(request_lost=True)
"""Not applied, and then BackendUnavailable."""
LOST_REPLY = DriverFault(reply_lost=True)
"""Applied, and then BackendUnavailable: the caller cannot tell it from LOST_REQUEST."""


@dataclass(slots=True)
class _Script:
    once: deque[DriverFault] = field(default_factory=deque)
    always: DriverFault | None = None

    def take(self) -> DriverFault | None:
        return self.once.popleft() if self.once else self.always


class FaultyDriver:
    """`inner`, with faults. `request_timeout`: after how many seconds a caller that gets no answer gives up."""

    def __init__(self, inner: Driver, *, request_timeout: float = 4.0) -> None:
        self.inner = inner
        self.request_timeout = request_timeout
        self.calls: Counter[str] = Counter()
        self._scripts: defaultdict[str, _Script] = defaultdict(_Script)
        self._sent: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {}
        self._down = False
        self._silent = False
        self._waits: set[asyncio.Task[Any]] = set()
        self._under_way: set[asyncio.Task[Any]] = set()

    # The script.

    def next(self, verb: str, fault: DriverFault, *, times: int = 1) -> None:
        """`fault` befalls the next call of `verb`, or so many; what was scripted before comes first."""
        self._script(verb).once.extend([fault] * times)

    def always(self, verb: str, fault: DriverFault | None) -> None:
        """`fault` befalls every call of `verb` that has none of its own. None: no longer."""
        self._script(verb).always = fault

    def hold(self, verb: str) -> Gate:
        """The next call of `verb` waits at the gate that this returns, before it reaches the backend."""
        gate = Gate()
        self.next(verb, DriverFault(gate=gate))
        return gate

    def down(self, *, silent: bool = False) -> None:
        """From now on the backend is unreachable: refused at once, or, if `silent`, never answered. Cuts off waits."""
        self._down, self._silent = True, silent
        for wait in self._waits:
            wait.cancel()

    def up(self) -> None:
        self._down = False

    async def deliver_again(self, verb: str) -> object:
        """A copy of the last request of `verb` reaches the backend now, whatever has happened since.

        Returns the answer, or the backend's error: nobody else will hear of it.
        """
        if verb not in self._sent:
            raise LookupError(f"{verb} was not sent yet")
        try:
            return await self._sent[verb]()
        except ClusterLockError as error:
            return error

    async def settled(self) -> None:
        """Return when every request that is still under way has arrived."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _script(self, verb: str) -> _Script:
        if verb not in VERBS:
            raise ValueError(f"{verb} is not a verb; there are {', '.join(sorted(VERBS))}")
        return self._scripts[verb]

    # What becomes of a call.

    async def _call(
        self, verb: str, send: Callable[[], Coroutine[Any, Any, Answer]], patience: float | None = None
    ) -> Answer:
        self.calls[verb] += 1
        fault = self._script(verb).take()
        if fault is not None and fault.error is not None:
            raise fault.error
        if self._down or (fault is not None and fault.request_lost):
            if self._silent and self._down:
                await asyncio.sleep(self.request_timeout)
            raise BackendUnavailable(f"{verb}: the backend is unreachable (as scripted)")
        self._sent[verb] = send
        if fault is None:
            return await send()
        task = asyncio.get_running_loop().create_task(self._travel(send, fault))
        self._under_way.add(task)
        task.add_done_callback(self._arrived)
        done, _ = await asyncio.wait([task], timeout=patience or self.request_timeout)
        if not done or fault.reply_lost:
            raise BackendUnavailable(f"{verb}: no answer (as scripted)")
        return task.result()

    async def _travel(self, send: Callable[[], Coroutine[Any, Any, Answer]], fault: DriverFault) -> Answer:
        if fault.gate is not None:
            await fault.gate.pass_through()
        if fault.request_takes:
            await asyncio.sleep(fault.request_takes)
        answer = await send()
        if fault.reply_takes:
            await asyncio.sleep(fault.reply_takes)
        return answer

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone; without this the loop would complain that nobody looked

    # The verbs.

    @property
    def traits(self) -> Traits:
        return self.inner.traits

    @property
    def backend(self) -> str:
        return self.inner.backend

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        for task in list(self._under_way):
            task.cancel()
        await self.settled()
        await self.inner.close()

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        return await self._call("grant_lease", lambda: self.inner.grant_lease(holder, ttl))

    async def renew(self, lease: Lease) -> int:
        return await self._call("renew", lambda: self.inner.renew(lease))

    async def revoke(self, lease: Lease) -> None:
        return await self._call("revoke", lambda: self.inner.revoke(lease))

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        return await self._call("acquire", lambda: self.inner.acquire(lease, name, record))

    async def release(self, grant: Grant, farewell: bytes) -> None:
        return await self._call("release", lambda: self.inner.release(grant, farewell))

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        return await self._call("transfer", lambda: self.inner.transfer(grant, heir, record))

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        return await self._call("announce", lambda: self.inner.announce(lease, name, record))

    async def withdraw(self, lease: Lease, name: str) -> None:
        return await self._call("withdraw", lambda: self.inner.withdraw(lease, name))

    async def read(self, names: Collection[str]) -> Changes:
        return await self._call("read", lambda: self.inner.read(names))

    async def scan(self, prefix: str) -> list[Entry]:
        return await self._call("scan", lambda: self.inner.scan(prefix))

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        async def wait() -> Changes:
            task = asyncio.get_running_loop().create_task(self.inner.wait_changed(names, since, at_most))
            self._waits.add(task)
            try:
                await asyncio.wait([task])
            finally:
                self._waits.discard(task)
                task.cancel()
            if task.cancelled():
                raise BackendUnavailable("wait_changed: cut off (as scripted)")
            return task.result()

        return await self._call("wait_changed", wait, at_most + self.request_timeout)
