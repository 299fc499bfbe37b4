"""A leader on a real server, and what people and faults do to its lock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.aio import until
from support.backends import Backend
from support.stores import SERVERS, TIMING, Operator, open_session, stands_by

from cluster_lock import clock
from cluster_lock.election import Election, Term
from cluster_lock.errors import BackendUnavailable
from cluster_lock.session import Session
from cluster_lock.values import Origin

pytestmark = pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")


@pytest.fixture
def prefix() -> str:
    return f"cluster-lock/{secrets.token_hex(4)}/"


class Poller:
    """A body that polls, and notes from when to when."""

    def __init__(self) -> None:
        self.polled: list[list[float]] = []
        self.terms: list[Term] = []
        self.polling = asyncio.Event()

    async def __call__(self, term: Term) -> None:
        self.terms.append(term)
        try:
            self.polled.append([clock.now(), float("inf")])
            self.polling.set()
            await term.wait_step_down()
        finally:
            self.polling.clear()
            if self.polled and self.polled[-1][1] == float("inf"):
                self.polled[-1][1] = clock.now()


def overlap(first: Poller, second: Poller) -> bool:
    """Did both poll at the same moment?"""
    return any(a[0] < b[1] and b[0] < a[1] for a in first.polled for b in second.polled)


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def lead(session: Session, poller: Poller) -> tuple[Election, asyncio.Task[None]]:
    election = Election(session)
    return election, asyncio.create_task(election.lead("x", poller))


@pytest.mark.parametrize("deed", ["delete_key", "end_lease"])
async def test_a_lock_that_a_person_broke(backend: Backend, prefix: str, deed: str) -> None:
    """When a person deletes the key or ends the lease, the leader stops before the next one, which settles first,
    polls, and the old one is a standby with a live lease again."""
    operator, first, second = Operator(backend, prefix), Poller(), Poller()
    async with open_session(backend, prefix, "a") as a, open_session(backend, prefix, "b") as b:
        _, leading = await lead(a, first)
        await asyncio.wait_for(first.polling.wait(), 10)
        _, waiting = await lead(b, second)
        await stands_by(b, "x")
        lease = await a.lease()
        changed = Changed(backend, prefix)
        watching = asyncio.create_task(changed.wait())
        await asyncio.wait_for(changed.ready.wait(), 5)
        before = clock.now()
        await in_thread(getattr(operator, deed), "x" if deed == "delete_key" else lease.id)
        # These tell nobody of what a person deletes: who takes the lock does.
        at = before if backend.name in ("redis", "postgres") else await asyncio.wait_for(watching, 10)
        await asyncio.wait_for(asyncio.shield(until(lambda: first.polled[0][1] < float("inf"))), 10)
        await until(lambda: a.context.lease.current is not None and clock.now() < a.context.lease.stop_at)
        if deed == "end_lease":
            await until(lambda: a.context.lease.current not in (None, lease))
        await until(lambda: first.polling.is_set() or second.polling.is_set())
        assert not overlap(first, second)
        assert min(p.polled[-1][0] for p in (first, second) if p.polling.is_set()) - at >= TIMING.settle - 0.01
        leading.cancel()
        waiting.cancel()
        await asyncio.gather(leading, waiting, return_exceptions=True)


class Changed:
    """An onlooker with a driver of its own: when the key of the lock left its holder, as the server tells it."""

    def __init__(self, backend: Backend, prefix: str) -> None:
        self.session = open_session(backend, prefix, "onlooker")
        self.ready = asyncio.Event()

    async def wait(self) -> float:
        driver = self.session.driver
        await driver.open()
        try:
            changes = await driver.wait_changed(["leader/x"], None, 5)
            held = changes.entries["leader/x"].lease
            self.ready.set()
            while True:
                changes = await driver.wait_changed(["leader/x"], changes.position, 5)
                entry = changes.entries.get("leader/x")
                if entry is not None and entry.lease != held:
                    return clock.now()
        finally:
            await driver.close()


async def test_an_unreachable_backend(backend: Backend, prefix: str) -> None:
    """While the server is frozen the leader polls on to its stop_at and not beyond it, and leads again by itself
    after."""
    assert backend.server is not None
    poller = Poller()
    async with open_session(backend, prefix, "a") as a:
        _, leading = await lead(a, poller)
        await asyncio.wait_for(poller.polling.wait(), 10)
        backend.server.pause()
        try:
            await asyncio.sleep(TIMING.renew_every)
            stop_at = a.context.lease.stop_at
            assert poller.polling.is_set()
            await until(lambda: not poller.polling.is_set())
            assert stop_at - 0.05 <= poller.polled[0][1] <= stop_at + TIMING.stop_time
        finally:
            backend.server.resume()
        await asyncio.wait_for(poller.polling.wait(), 20)
        assert poller.terms[1].fencing_token > poller.terms[0].fencing_token
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


async def test_a_short_outage_costs_nothing(backend: Backend, prefix: str) -> None:
    """A server that is frozen for less than the time to stop_at does not end the term."""
    assert backend.server is not None
    poller = Poller()
    async with open_session(backend, prefix, "a") as a:
        _, leading = await lead(a, poller)
        await asyncio.wait_for(poller.polling.wait(), 10)
        deadline = a.context.lease.deadline
        await until(lambda: a.context.lease.deadline > deadline)
        backend.server.pause()
        await asyncio.sleep(0.4)
        backend.server.resume()
        for _ in range(2):
            deadline = a.context.lease.deadline
            await until(lambda: a.context.lease.deadline > deadline)  # noqa: B023
        assert poller.polling.is_set()
        assert len(poller.terms) == 1
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


async def test_hand_over_between_sessions(backend: Backend, prefix: str) -> None:
    """A leader that stops hands over to the standby that answered: no settle, a larger token, and never both at
    once."""
    first, second = Poller(), Poller()
    async with open_session(backend, prefix, "a") as a, open_session(backend, prefix, "b") as b:
        for old, old_session, new, new_session in ((first, a, second, b), (second, b, first, a)):
            election, leading = await lead(old_session, old)
            if not old.polling.is_set():
                await asyncio.wait_for(old.polling.wait(), 10)
            _, waiting = await lead(new_session, new)
            await stands_by(new_session, "x")
            election.stop()
            await asyncio.wait_for(leading, 10)
            await asyncio.wait_for(new.polling.wait(), 10)
            assert new.terms[-1].origin is Origin.HANDED_OVER
            assert new.terms[-1].fencing_token > old.terms[-1].fencing_token
            assert not overlap(first, second)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_waiting_leaks_nothing(backend: Backend, prefix: str) -> None:
    """After 1,000 acquires that did not get the lock, the server has no lease more than before them."""
    operator, patient = Operator(backend, prefix), replace(TIMING, ttl=10.0, margin=2.0)
    async with (
        open_session(backend, prefix, "a", patient) as a,
        open_session(backend, prefix, "b", patient) as b,
    ):
        hold = await a.lock("x").acquire()
        lease = await b.lease()
        before = await in_thread(operator.leases)
        for _ in range(1000):
            assert await b.driver.acquire(lease, "leader/x", b.context.identity.record().to_bytes()) is None
        # Fewer: one of an earlier test expired meanwhile.
        assert await in_thread(operator.leases) <= before
        await hold.end({})


async def test_an_overwritten_value(backend: Backend, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """A stranger's value under the lock's key is never overwritten by us. On Consul the session still holds the key and
    the leader leads on; elsewhere it left the lease, so the term ends and nobody leads until a person deletes it."""
    operator, poller = Operator(backend, prefix), Poller()
    async with open_session(backend, prefix, "a") as a:
        election, leading = await lead(a, poller)
        await asyncio.wait_for(poller.polling.wait(), 10)
        await in_thread(operator.overwrite, "x", "hands off")
        if backend.name == "consul":
            await until(lambda: "overwrote" in caplog.text)
            await asyncio.sleep(TIMING.ttl)
            assert poller.polling.is_set()
            election.stop()
            await asyncio.wait_for(leading, 10)
            async with a.lock("x").hold() as hold:
                assert hold.fencing_token > poller.terms[0].fencing_token
            return
        await until(lambda: not poller.polling.is_set())
        await until(lambda: "until a person acts" in caplog.text)
        assert await in_thread(operator.value, "x") == "hands off"
        await in_thread(operator.delete_key, "x")
        await asyncio.wait_for(poller.polling.wait(), 10)
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


async def test_a_restart_of_the_server(backend: Backend, prefix: str) -> None:
    """A server that is stopped and started again, its data on disk, is led on afterwards with a token that has not gone
    back, whether the term survived or not."""
    assert backend.server is not None
    poller = Poller()
    async with open_session(backend, prefix, "a") as a:
        _, leading = await lead(a, poller)
        await asyncio.wait_for(poller.polling.wait(), 10)
        token = poller.terms[0].fencing_token
        await in_thread(backend.server.restart)
        await asyncio.wait_for(poller.polling.wait(), 30)
        await asyncio.sleep(TIMING.ttl)
        await asyncio.wait_for(poller.polling.wait(), 30)
        assert poller.terms[-1].fencing_token >= token
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
    await in_thread(Operator(backend, prefix).wait_for_leases, int(TIMING.ttl))


async def test_a_server_that_is_not_there(backend: Backend, prefix: str) -> None:
    """A session whose server is down at the start waits for it and then works; with fail_fast it says so at once."""
    server = backend.server
    assert server is not None
    await in_thread(server.stop)
    try:
        async with open_session(backend, prefix, "a", fail_fast=True) as a:
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(a.lease(), 10)
        waiting = open_session(backend, prefix, "a")
        await waiting.__aenter__()
        getting = asyncio.create_task(waiting.lease())
        await asyncio.sleep(1)
        assert not getting.done()
    finally:
        await in_thread(server.start)
    # Other tests' leases may be longer than ours, and a server waits for the longest that it knows.
    await in_thread(Operator(backend, prefix).wait_for_leases, int(TIMING.ttl))
    await asyncio.wait_for(getting, 20)
    await waiting.close()
