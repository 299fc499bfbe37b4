"""Jobs: work that `Leadership.run` does once, in whichever term there is."""

from __future__ import annotations

import asyncio

import pytest
from support.sessions import session

from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Term

pytestmark = pytest.mark.virtual


async def name_of(term: Term) -> str:
    return term.name


async def test_a_startup_hook_may_start_a_job_and_not_wait_for_it(store: MemoryBackend) -> None:
    """What must return before anything is led is refused a job in its own task; a task of its own may wait for one."""
    async with session(store, "a") as a:
        election = Election(a)
        with election.nothing_led_yet():
            with pytest.raises(RuntimeError, match="startup hooks"):
                async with asyncio.timeout(5):
                    await election.run(name_of)
            job = asyncio.create_task(election.run(name_of))
            await asyncio.sleep(1)
            assert not job.done()
        leading = asyncio.create_task(election.lead("x", lambda term: term.wait_step_down()))
        async with asyncio.timeout(5):
            assert await job == "x"
            assert await election.run(name_of) == "x"
        election.stop()
        await leading


async def test_no_job_begins_in_a_term_that_is_given_away(store: MemoryBackend) -> None:
    """A job that is asked for while its leader steps down waits for another term."""
    async with session(store, "a") as a:
        election = Election(a)

        async def slow(term: Term) -> None:
            await term.wait_step_down()
            await asyncio.sleep(2)

        leading = asyncio.create_task(election.lead("x", slow))
        term = await election.run(of_now)
        term.step_down("a test")
        await term.wait_step_down()
        job = asyncio.create_task(election.run(of_now))
        assert await job is not term
        election.stop()
        await leading


async def of_now(term: Term) -> Term:
    return term
