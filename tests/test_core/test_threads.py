"""Work that a term has put into threads: the lock is not given away while it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from support.aio import run, until
from support.sessions import TIMING, holder, key_of, session

from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Term
from cluster_lock.election import election as election_module
from cluster_lock.election.until_over import PATIENCE
from cluster_lock.errors import LockLost
from cluster_lock.lease.threads import Threads
from cluster_lock.session import Session

QUICK = replace(TIMING, cancel_grace=0.2)


class Blocking:
    """Work that blocks a thread until it is let go."""

    def __init__(self) -> None:
        self.begun, self.ended, self.may_end = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.may_end.wait(20)
        self.ended.set()


async def in_the_body(work: Blocking, term: Term, election: Election) -> None:
    await asyncio.to_thread(work)


async def in_a_task_of_the_term(work: Blocking, term: Term, election: Election) -> None:
    term.spawn(asyncio.to_thread(work))
    await term.wait_step_down()


async def in_a_task_of_its_own(work: Blocking, term: Term, election: Election) -> None:
    async def deeper() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)

    await asyncio.create_task(deeper())


async def in_a_job(work: Blocking, term: Term, election: Election) -> None:
    async def job(term: Term) -> None:
        await asyncio.to_thread(work)

    job_run = asyncio.ensure_future(election.run(job, "x"))
    await term.wait_step_down()
    job_run.cancel()


@pytest.mark.parametrize("deed", [in_the_body, in_a_task_of_the_term, in_a_task_of_its_own, in_a_job])
async def test_the_lock_is_held_while_a_thread_works(
    deed: Callable[[Blocking, Term, Election], Awaitable[None]],
) -> None:
    """After a step-down, or the end of the body, the lock is given away when work of the term in a thread has ended,
    wherever it was begun, and not before."""
    store, work = MemoryBackend(), Blocking()
    async with session(store, "a", timing=QUICK) as one:
        election = Election(one)
        leading = asyncio.ensure_future(election.lead("x", lambda term: deed(work, term, election)))
        await until(work.begun.is_set)
        election.stop()
        done, _ = await asyncio.wait([leading], timeout=0.5)
        assert not done
        assert holder(store, "x") == "a"
        work.may_end.set()
        await leading
        assert work.ended.is_set()
        assert holder(store, "x") is None


@pytest.mark.parametrize("kept", [False, True])
def test_a_thread_that_outlives_the_drain(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that goes on after the drain has up to a ttl more, under a lease that is renewed, and the lock is given
    away when it has ended. Under a keeper, which releases the lock at the end of the process, it has not."""

    async def main() -> None:
        store, work, timing = MemoryBackend(), Blocking(), replace(QUICK, drain=0.1, cancel_grace=0.1)
        async with session(store, "a", timing=timing) as one:
            election = Election(one)
            election.kept = kept
            leading = asyncio.ensure_future(election.lead("x", lambda term: in_the_body(work, term, election)))
            await until(work.begun.is_set)
            election.stop()
            if kept:
                await until(lambda: bool(given_up))
            else:
                done, _ = await asyncio.wait([leading], timeout=PATIENCE + 0.5)
                assert not done
                assert holder(store, "x") == "a"
            work.may_end.set()
            await leading
            assert holder(store, "x") is None
        assert bool(given_up) is kept

    given_up: list[str] = []
    monkeypatch.setattr(election_module, "end_process", given_up.append)
    run(main())


async def test_a_body_has_the_time_of_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    """A body that waits for a thread, which goes on after the drain, is not cancelled meanwhile: it sees the end."""
    work, seen = Blocking(), []

    async def body(term: Term) -> None:
        await asyncio.to_thread(work)
        seen.append(work.ended.is_set())

    async with session(MemoryBackend(), "a", timing=replace(QUICK, drain=0.1, cancel_grace=0.1)) as one:
        election = Election(one)
        leading = asyncio.ensure_future(election.lead("x", body))
        await until(work.begun.is_set)
        election.stop()
        await until(lambda: "work goes on in 1 threads" in caplog.text)
        work.may_end.set()
        await leading
    assert seen == [True]


async def test_a_block_holds_its_lock_while_a_thread_works(store: MemoryBackend) -> None:
    """What a `hold()` block put into a thread is waited for before the lock is given away, and on a loss too."""
    for lost in (False, True):
        work = Blocking()
        async with session(store, "a", timing=QUICK) as one:

            async def block(one: Session = one, work: Blocking = work) -> None:
                async with one.lock("x").hold(settle=False):
                    await asyncio.to_thread(work)

            holding = asyncio.ensure_future(block())
            await until(work.begun.is_set)
            if lost:
                store.end_lease(store.entry(key_of("x"), "x").lease or "")
            else:
                holding.cancel()
            done, _ = await asyncio.wait([holding], timeout=0.5)
            assert not done
            assert (holder(store, "x") is None) is lost
            work.may_end.set()
            with pytest.raises(LockLost if lost else asyncio.CancelledError):
                await holding


async def test_an_executor_that_somebody_else_sets_is_left_alone() -> None:
    """A default executor that is set after the election was made stays."""
    async with session(MemoryBackend(), "a") as one:
        election = Election(one)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="theirs"))
        Election(one)

        async def body(term: Term) -> str:
            return await asyncio.to_thread(lambda: threading.current_thread().name)

        names: list[str] = []

        async def noted(term: Term) -> None:
            names.append(await body(term))

        await election.lead("x", noted)
        assert names[0].startswith("theirs")


@pytest.mark.parametrize("debug", [False, True])
async def test_a_look_up_of_a_name_is_nobodys_work(debug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What asyncio puts into a thread to look up a name is not waited for; what the body puts there is."""
    noted: list[object] = []
    monkeypatch.setattr(Threads, "note", lambda self, work: noted.append(work))
    asyncio.get_running_loop().set_debug(debug)
    async with session(MemoryBackend(), "a") as one:

        async def body(term: Term) -> None:
            await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
            await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 80), 1 | 2)
            assert noted == []
            await asyncio.get_running_loop().run_in_executor(None, partial(int, "1"))
            assert len(noted) == 1

        await Election(one).lead("x", body)


async def test_after_a_term_nothing_is_noted() -> None:
    """Work that waits for a thread when its term is over is waited for too; one that was taken back is not."""
    threads = Threads()
    with ThreadPoolExecutor(1) as pool:
        first, second = Blocking(), Blocking()
        for work in (first, second):
            threads.note(pool.submit(work))
        assert not await threads.ended(0.01)
        [taken_back] = [each for each in threads.running if each.cancel()]
        assert taken_back.cancelled()
        first.may_end.set()
        assert await threads.ended(10)
        assert not second.begun.is_set()
