"""A term as its work sees it, and as an observer is told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from support.aio import until
from support.members import asked, company
from support.sessions import TIMING, key_of, session, until_steps_down

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import LockLost
from cluster_lock.observer import Ending, Observer
from cluster_lock.testing.virtual_time import suspend
from cluster_lock.values import EndReason, Origin

pytestmark = pytest.mark.virtual


class Heard(Observer):
    """Notes what it is told about the lock x, each in a word or two."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def standing_by(self, name: str) -> None:
        self.told.append("standing by")

    def term_began(self, name: str, fencing_token: int, origin: Origin) -> None:
        self.told.append("leading")

    def step_down_began(self, name: str, reason: str, heir: str | None) -> None:
        self.told.append(f"stepping down for {heir}")

    def term_ended(self, name: str, reason: EndReason, how: Ending, heir: str | None = None) -> None:
        self.told.append(f"{how}, heir {heir}")

    def stopped(self, name: str) -> None:
        self.told.append("stopped")


async def led(election: Election) -> Term:
    await until(lambda: election.term("x") is not None)
    term = election.term("x")
    assert term is not None
    return term


async def test_an_observer_is_told_of_each_transition(store: MemoryBackend) -> None:
    """The life of a leader is told in order: it stands by, leads, loses, leads again, hands over to a named heir,
    stands by, and stops."""
    heard = Heard()
    async with session(store, "a") as a, session(store, "b") as b:
        mine, other = Election(a, observer=heard), Election(b)
        leading = asyncio.ensure_future(mine.lead("x", until_steps_down))
        await led(mine)
        store.stranger_deletes(key_of("x"))
        await until(lambda: mine.term("x") is None)
        await led(mine)
        waiting = asyncio.ensure_future(other.lead("x", until_steps_down))
        await asyncio.sleep(1)
        mine.stop()
        await leading
        other.stop()
        await waiting
    lost = ["standing by", "leading", "lost, heir None", "standing by"]
    over = ["stepping down for b", "handed over, heir b", "standing by", "stopped"]
    assert [each for each, last in zip(heard.told, ["", *heard.told], strict=False) if each != last] == [
        *lost,
        "leading",
        *over,
    ]


async def test_the_moments_of_a_term(store: MemoryBackend) -> None:
    """The deadline is the stop time after the moment at which the work is cancelled; what remains runs down to that
    moment, and is nothing when the term is over, whose check then says why."""
    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", until_steps_down))
        term = await led(election)
        assert term.deadline == pytest.approx(term.stop_at + TIMING.stop_time)
        assert term.remaining == pytest.approx(term.stop_at - clock.now())
        assert 0 < term.remaining < TIMING.ttl
        term.check()
        election.stop("deploy")
        await leading
        assert (term.ended is None, term.remaining) == (False, 0)
        with pytest.raises(LockLost, match="deploy"):
            term.check()
        with pytest.raises(LockLost, match="deploy"):
            term.spawn(asyncio.sleep(0))


async def test_nothing_remains_after_a_sleep_of_the_machine(store: MemoryBackend) -> None:
    """A term whose lease has run out while the machine slept has no time left, before anything else has noticed it."""
    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", until_steps_down))
        term = await led(election)
        suspend(3600)
        assert (term.ended, term.remaining, term.is_valid()) == (None, 0, False)
        with pytest.raises(LockLost, match="not renewed in time"):
            term.check()
        election.stop()
        await leading


async def test_a_drain_waits_for_tasks_and_cancels_what_is_left(store: MemoryBackend) -> None:
    """A drain waits for spawned tasks, also for those that come meanwhile, and not for those without an end; at its
    limit it cancels the rest and names them."""
    ended: list[str] = []
    cut: list[str] = []
    took: list[float] = []

    async def work(term: Term, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(name)
        if name == "first":
            term.spawn(work(term, "after it", seconds))

    async def body(term: Term) -> None:
        term.spawn(asyncio.sleep(1000), drains=False)
        for limit, others in ((30.0, {"first": 2.0}), (10.0, {"slow": 100.0})):
            spawned = {term.spawn(work(term, name, seconds)): name for name, seconds in others.items()}
            began = clock.now()
            left = await term.drain(limit)
            took.append(clock.now() - began)
            await asyncio.sleep(0)
            cut.extend(spawned[task] for task in left if task.cancelled())

    async with session(store, "a") as a:
        await Election(a).lead("x", body, settle=False)
    assert (ended, cut) == (["first", "after it"], ["slow"])
    assert took == pytest.approx([4.0, 10.0])


async def test_a_leader_that_looks_for_an_heir_declines_a_person(store: MemoryBackend) -> None:
    """While a leader asks a contender whether it would do, a person who asks is told that; and one who asks where
    nobody stands by is told that."""
    asked_whether = asyncio.Event()

    async def slow(answer: Mapping[str, Any]) -> bool:
        asked_whether.set()
        await asyncio.sleep(1)
        return False

    async with company(store, "a", "b") as (a, b):
        a.terms[0].step_down("no route", willing=slow)
        await asked_whether.wait()
        assert (await asked(store)).declined == "it looks for an heir already (no route)"
        await until(lambda: a.terms[0].request is None)
        b.election.stop()
        await b.task
        assert (await asked(store)).declined == "nobody stands by who answered its invitation"
        assert a.terms[0].is_valid()


async def test_a_stop_waits_for_no_settling(store: MemoryBackend) -> None:
    """A term that did not settle, and is told to stop, stops at once; only one that looks for an heir under a condition
    waits until it may hand over."""
    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", until_steps_down, settle=False))
        term = await led(election)
        began = clock.now()
        election.stop()
        await leading
        assert term.origin is Origin.FOUND_FREE
        assert clock.now() - began < TIMING.settle / 2


async def test_lines_about_a_term_have_its_fields(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """A line of the log about a term has the lock and the token as fields, and the reason where there is one."""
    caplog.set_level(logging.INFO)
    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", until_steps_down))
        token = (await led(election)).fencing_token
        election.stop("deploy")
        await leading
    fields = {
        record.getMessage().split(",")[0].split(" ", 1)[1]: tuple(
            getattr(record, each, None) for each in ("lock", "term", "reason")
        )
        for record in caplog.records
        if record.name == "cluster_lock.election"
    }
    assert fields["leading"] == ("x", token, None)
    assert fields["stepping down"] == ("x", token, "deploy")
    assert fields["not leading any more"] == ("x", token, "stepped down: deploy")


@pytest.mark.parametrize(("part", "origin"), [(0.5, Origin.HANDED_OVER), (0.9, Origin.RELEASED)])
async def test_an_answer_may_take_most_of_the_invitation(part: float, origin: Origin, store: MemoryBackend) -> None:
    """A contender that needs half of the time of its invitation for its answer is the heir; one that needs nearly all
    of it does not answer, and the lock is released."""

    async def answer() -> Mapping[str, Any]:
        await asyncio.sleep(part * TIMING.invite)
        return {}

    async with session(store, "a") as a, session(store, "b") as b:
        mine, other = Election(a), Election(b)
        leading = asyncio.ensure_future(mine.lead("x", until_steps_down))
        await led(mine)
        waiting = asyncio.ensure_future(other.lead("x", until_steps_down, answer=answer))
        await asyncio.sleep(1)
        mine.stop()
        await leading
        assert (await led(other)).origin is origin
        other.stop()
        await waiting


async def test_a_grant_that_nobody_here_asked_for_is_asked_for_anew(store: MemoryBackend) -> None:
    """A lock that stands under our lease, with a token that is too small, is given back and asked for once more: what
    the store grants now is larger."""
    async with session(store, "a") as a:
        lease = await a.lease()
        record = a.context.identity.record("x").to_bytes()
        stood = await MemoryDriver(store).acquire(lease, "leader/x", record)
        assert stood is not None
        a.context.identity.tokens.note("x", stood.token)
        hold = await a.lock("x").acquire()
        assert hold.fencing_token > stood.token
        await hold.end({})
