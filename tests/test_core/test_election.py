"""The election: terms begin and end in order, and nothing of a term runs when the lock is somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from support.sessions import TIMING, holder, key_of, session, standby

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Leadership, Role, Term
from cluster_lock.errors import LockLost, TokenWentBack
from cluster_lock.testing.faulty import FaultyDriver
from cluster_lock.testing.virtual_time import run
from cluster_lock.values import Origin, Record

pytestmark = pytest.mark.virtual


class Bot:
    """A body that notes what happens to it; `working` is true while it works under a valid term."""

    def __init__(self, drain: float = 0.0) -> None:
        self.terms: list[Term] = []
        self.drain = drain
        self.working = False
        self.leading = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, term: Term) -> None:
        self.terms.append(term)
        self.working = True
        self.leading.set()
        try:
            await term.wait_step_down()
            await asyncio.sleep(self.drain)
            term.handover["offset"] = term.fencing_token
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.working = False
            self.leading.clear()


async def until_leader(bot: Bot) -> Term:
    await asyncio.wait_for(bot.leading.wait(), 60)
    return bot.terms[-1]


def test_election_is_a_leadership() -> None:
    """The election keeps the interface that the poller knows."""
    leadership: type[Leadership] = Election
    assert leadership is Election


async def test_graceful_hand_over(store: MemoryBackend) -> None:
    """A leader that is stopped hands over to the contender that answered, after its body has ended, with what it
    left."""
    first, second = Bot(drain=2.0), Bot()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        leading = asyncio.create_task(ea.lead("x", first))
        before = await until_leader(first)
        waiting = asyncio.create_task(eb.lead("x", second))
        await asyncio.sleep(1)
        assert (ea.role("x"), eb.role("x")) == (Role.LEADER, Role.STANDBY)
        ea.stop("deploy")
        await asyncio.sleep(1)
        assert (first.working, second.working) == (True, False)
        assert holder(store, "x") == "a"
        after = await until_leader(second)
        assert not first.working
        assert after.origin is Origin.HANDED_OVER
        assert after.inherited == {"offset": before.fencing_token}
        assert after.fencing_token > before.fencing_token
        assert before.ended == "stepped down: deploy"
        await leading
        eb.stop()
        await waiting


async def test_its_own_successor_is_asked_first(store: MemoryBackend) -> None:
    """A leader that is stopped hands over to the contender of its own name, however long others have waited."""
    old, other, successor = Bot(), Bot(), Bot()
    async with session(store, "a") as a, session(store, "b") as b, session(store, "a") as next_a:
        elections = [Election(each) for each in (a, b, next_a)]
        leading = []
        for election, bot in zip(elections, (old, other, successor), strict=True):
            leading.append(asyncio.create_task(election.lead("x", bot)))
            await asyncio.sleep(1)
        assert old.working
        elections[0].stop("restart")
        assert (await until_leader(successor)).origin is Origin.HANDED_OVER
        assert not other.terms
        for election in reversed(elections):
            election.stop()
        await asyncio.gather(*leading)


async def test_no_contender_means_released(store: MemoryBackend) -> None:
    """With nobody to hand over to the lock is released, and says so to anybody who comes next."""
    async with session(store, "a") as a:
        election, bot = Election(a), Bot()
        leading = asyncio.create_task(election.lead("x", bot))
        await until_leader(bot)
        await asyncio.sleep(1)
        election.stop()
        await leading
    async with session(store, "b") as b, b.lock("x").hold() as hold:
        assert hold.origin is Origin.RELEASED_EARLIER, "b has not heard of the term of a"
        assert hold.inherited == {"offset": bot.terms[0].fencing_token}


async def test_a_silent_contender_is_passed_over(store: MemoryBackend) -> None:
    """The lock is never given to a contender that does not answer the invitation: the next one that answers gets it."""
    corpse = MemoryDriver(store)
    lease = await corpse.grant_lease("corpse", 10_000)
    record = Record(holder="c", instance="corpse", host="h", pid=1, since="", version="0", names=("x",))
    first, second = Bot(), Bot()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        leading = asyncio.create_task(ea.lead("x", first))
        await until_leader(first)
        await corpse.announce(lease, "standby/corpse", record.to_bytes())
        waiting = asyncio.create_task(eb.lead("x", second))
        await asyncio.sleep(1)
        ea.stop()
        assert (await until_leader(second)).origin is Origin.HANDED_OVER
        eb.stop()
        await asyncio.gather(leading, waiting)


async def test_only_the_dead_contend(store: MemoryBackend) -> None:
    """When no contender answers at all, the lock is released after the invitations, not transferred."""
    corpse = MemoryDriver(store)
    lease = await corpse.grant_lease("corpse", 10_000)
    record = Record(holder="c", instance="corpse", host="h", pid=1, since="", version="0", names=("x",))
    bot = Bot()
    async with session(store, "a") as a:
        election = Election(a)
        leading = asyncio.create_task(election.lead("x", bot))
        await until_leader(bot)
        await corpse.announce(lease, "standby/corpse", record.to_bytes())
        await asyncio.sleep(1)
        election.stop()
        await leading
        assert holder(store, "x") is None


@pytest.mark.parametrize("dead", [3, 4])
async def test_so_many_are_invited(dead: int, store: MemoryBackend) -> None:
    """Four contenders are asked, the oldest first, and no more: a leader that stops does not ask the dead for ever."""
    corpse, bot, heir = MemoryDriver(store), Bot(), Bot()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        leading = asyncio.create_task(ea.lead("x", bot))
        await until_leader(bot)
        for number in range(dead):
            name = f"corpse-{number}"
            lease = await corpse.grant_lease(name, 10_000)
            record = Record(holder="c", instance=name, host="h", pid=1, since="", version="0", names=("x",))
            await corpse.announce(lease, f"standby/{name}", record.to_bytes())
        waiting = asyncio.create_task(eb.lead("x", heir))
        await asyncio.sleep(1)
        ea.stop()
        origin = (await until_leader(heir)).origin
        assert (origin is Origin.HANDED_OVER) is (dead < 4)
        eb.stop()
        await asyncio.gather(leading, waiting)


async def test_an_invitation_of_somebody_else_is_void(store: MemoryBackend) -> None:
    """A contender answers only the holder of the lock: an invitation under another lease changes nothing."""
    stranger = MemoryDriver(store)
    lease = await stranger.grant_lease("stranger", 10_000)
    first, second = Bot(), Bot()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        tasks = [asyncio.create_task(ea.lead("x", first))]
        await until_leader(first)
        tasks.append(asyncio.create_task(eb.lead("x", second)))
        await asyncio.sleep(1)
        before = standby(store, "b")
        invitation = f'{{"to": "{before.lease}", "token": 99, "number": "1"}}'.encode()
        await stranger.announce(lease, "invite/x", invitation)
        await asyncio.sleep(1)
        assert standby(store, "b") == before
        ea.stop()
        eb.stop()
        await asyncio.gather(*tasks)


async def test_after_a_loss_it_stands_by_again(store: MemoryBackend) -> None:
    """A leader whose key is deleted stops its work in milliseconds, ends nothing else, and leads again in a new
    term."""
    async with session(store, "a") as a:
        election, bot = Election(a), Bot()
        leading = asyncio.create_task(election.lead("x", bot))
        await until_leader(bot)
        store.stranger_deletes(key_of("x"))
        await asyncio.sleep(0.09)
        assert bot.cancelled == 1
        again = await until_leader(bot)
        assert len(bot.terms) == 2
        assert again.fencing_token > bot.terms[0].fencing_token
        assert not bot.terms[0].is_valid()
        with pytest.raises(LockLost):
            bot.terms[0].check()
        election.stop()
        await leading


async def test_the_lock_is_kept_while_the_work_ends(store: MemoryBackend) -> None:
    """A body that takes its time to drain keeps the lock, renewed, for as long: nobody else leads before it has
    ended."""
    first, second = Bot(drain=TIMING.drain), Bot()
    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        tasks = [asyncio.create_task(ea.lead("x", first))]
        await until_leader(first)
        tasks.append(asyncio.create_task(eb.lead("x", second)))
        await asyncio.sleep(1)
        ea.stop()
        while first.working:
            assert not second.working
            assert holder(store, "x") == "a"
            await asyncio.sleep(0.1)
        await until_leader(second)
        eb.stop()
        await asyncio.gather(*tasks)


async def test_a_body_that_returns_by_itself_is_done(store: MemoryBackend) -> None:
    """When the body returns although nobody asked, the lock is released and `lead` returns; what it raises comes
    out."""
    async with session(store, "a") as a:
        election = Election(a)

        async def done(term: Term) -> None:
            return None

        async def broken(term: Term) -> None:
            raise RuntimeError("bug")

        await election.lead("x", done)
        assert holder(store, "x") is None
        with pytest.raises(RuntimeError, match="bug"):
            await election.lead("x", broken)
        assert holder(store, "x") is None
        assert election.role("x") is Role.STOPPED


async def test_tasks_of_a_term_end_with_it(store: MemoryBackend) -> None:
    """What was spawned in a term is cancelled and awaited before the lock is given away."""
    async with session(store, "a") as a:
        election, bot = Election(a), Bot()
        leading = asyncio.create_task(election.lead("x", bot))
        term = await until_leader(bot)
        seen: list[str | None] = []

        async def work() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0.2)
                seen.append(holder(store, "x"))

        term.spawn(work())
        election.stop()
        await leading
        assert seen == ["a"]
        with pytest.raises(LockLost):
            term.spawn(work())


async def test_no_task_begins_while_the_others_end(store: MemoryBackend) -> None:
    """What a task of the term would begin at its own end is refused: nobody would end that before the lock is given
    away."""
    async with session(store, "a") as a:
        election, bot = Election(a), Bot()
        leading = asyncio.create_task(election.lead("x", bot))
        term = await until_leader(bot)
        refused: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                with pytest.raises(LockLost) as caught:
                    term.spawn(asyncio.sleep(1000))
                refused.append(str(caught.value))

        term.spawn(work())
        election.stop()
        await leading
        assert refused == ["x: the term is ending"]


async def test_jobs_run_on_the_leader_only(store: MemoryBackend) -> None:
    """A job runs in each term until it returns once; a loss cancels it, the next term begins it again."""
    async with session(store, "a") as a:
        election, bot = Election(a), Bot()
        starts: list[int] = []

        async def job(term: Term) -> str:
            starts.append(term.fencing_token)
            if len(starts) == 1:
                await asyncio.sleep(1000)
            return "done"

        running = asyncio.create_task(election.run(job))
        await asyncio.sleep(5)
        assert starts == []
        leading = asyncio.create_task(election.lead("x", bot))
        await until_leader(bot)
        await asyncio.sleep(1)
        store.stranger_deletes(key_of("x"))
        assert await asyncio.wait_for(running, 5) == "done"
        assert starts == [term.fencing_token for term in bot.terms]
        election.stop()
        await leading


async def test_a_job_is_not_begun_again_in_a_term_that_ends(store: MemoryBackend) -> None:
    """When a term ends because its work is done, a job of it is cancelled once, and begins again in the next term."""
    async with session(store, "a") as a:
        election = Election(a)
        done = asyncio.Event()
        begun: list[int] = []

        async def job(term: Term) -> None:
            begun.append(term.fencing_token)
            await asyncio.sleep(1000)

        async def body(term: Term) -> None:
            await done.wait()

        jobs = asyncio.create_task(election.run(job, "x"))
        leading = asyncio.create_task(election.lead("x", body))
        await asyncio.sleep(1)
        done.set()
        await leading
        assert len(begun) == 1
        done.clear()
        leading = asyncio.create_task(election.lead("x", body))
        await asyncio.sleep(1)
        assert len(begun) == 2
        election.stop()
        done.set()
        await leading
        await jobs
        assert begun == sorted(set(begun))


async def test_a_conditional_step_down_needs_somebody_willing(store: MemoryBackend) -> None:
    """A step-down that asks for a willing heir is declined while no contender's answer satisfies it, and the term goes
    on."""
    first, second = Bot(), Bot()
    reaches = {"telegram": False}

    async def answer() -> Mapping[str, Any]:
        return reaches

    async with session(store, "a") as a, session(store, "b") as b:
        ea, eb = Election(a), Election(b)
        tasks = [asyncio.create_task(ea.lead("x", first))]
        term = await until_leader(first)
        tasks.append(asyncio.create_task(eb.lead("x", second, answer=answer)))
        await asyncio.sleep(1)
        term.step_down("no route", cool_down=60, willing=lambda said: bool(said.get("telegram")))
        await asyncio.sleep(3)
        assert term.is_valid()
        assert (term.stepping_down, term.request) == (False, None)
        reaches["telegram"] = True
        term.step_down("no route", cool_down=60, willing=lambda said: bool(said.get("telegram")))
        began = clock.now()
        await until_leader(second)
        eb.stop()
        await asyncio.sleep(30)
        assert not first.working
        await until_leader(first)
        assert clock.now() - began >= 60
        ea.stop()
        await asyncio.gather(*tasks)


async def test_a_cancelled_lead_gives_the_lock_away(store: MemoryBackend) -> None:
    """Cancelling `lead` ends the body first, then frees the lock, then raises."""
    async with session(store, "a") as a:
        bot = Bot()
        leading = asyncio.create_task(Election(a).lead("x", bot))
        await until_leader(bot)
        leading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leading
        assert bot.cancelled == 1
        assert holder(store, "x") is None


async def test_stopping_a_standby_leaves_nothing(store: MemoryBackend) -> None:
    """A standby that is stopped withdraws its contender record and returns."""
    async with session(store, "a") as a, session(store, "b") as b, a.lock("x").hold():
        election = Election(b)
        leading = asyncio.create_task(election.lead("x", Bot()))
        await asyncio.sleep(1)
        assert standby(store, "b").lease is not None
        election.stop()
        await asyncio.wait_for(leading, 1)
        assert standby(store, "b").lease is None


async def test_stopping_a_standby_of_a_silent_backend_is_bounded(store: MemoryBackend) -> None:
    """A standby whose backend answers nothing has ended, with its session, within the time of two requests."""
    async with session(store, "a") as a, a.lock("x").hold():
        driver = FaultyDriver(MemoryDriver(store))
        async with session(store, "b", driver=driver) as b:
            election = Election(b)
            leading = asyncio.create_task(election.lead("x", Bot()))
            await asyncio.sleep(1)
            driver.down(silent=True)
            began = clock.now()
            election.stop()
            await leading
        assert clock.now() - began <= 2 * TIMING.request + 0.5


async def test_a_body_that_was_cancelled_is_not_done(store: MemoryBackend) -> None:
    """When somebody cancels the work itself, `lead` does not return as if it had ended well."""
    async with session(store, "a") as a:

        async def cancels_itself(term: Term) -> None:
            raise asyncio.CancelledError

        leading = asyncio.create_task(Election(a).lead("x", cancels_itself))
        await asyncio.wait([leading])
        assert leading.cancelled()
        assert holder(store, "x") is None


def test_an_answer_that_fails_costs_the_invitation_only(caplog: pytest.LogCaptureFixture) -> None:
    """A contender whose `answer` fails is passed over, says so, and leads when the lock is free."""

    async def main() -> None:
        store = MemoryBackend()
        first, second = Bot(), Bot()

        async def fails() -> Mapping[str, Any]:
            raise RuntimeError("bug")

        async with session(store, "a") as a, session(store, "b") as b:
            ea, eb = Election(a), Election(b)
            leading = asyncio.create_task(ea.lead("x", first))
            await until_leader(first)
            waiting = asyncio.create_task(eb.lead("x", second, answer=fails))
            await asyncio.sleep(1)
            ea.stop()
            await leading
            term = await until_leader(second)
            assert term.origin is not Origin.HANDED_OVER
            eb.stop()
            await waiting

    run(main())
    assert "no answer to the invitation" in caplog.text


@pytest.mark.parametrize("origin", [Origin.FOUND_FREE, Origin.RELEASED])
@pytest.mark.parametrize("told", [{"tokens": {"x": 9999}}, {"seen": 9999, "format": 1}], ids=["by lock", "first"])
async def test_contenders_remember_tokens_for_a_store_that_was_set_back(
    told: dict[str, Any], origin: Origin, store: MemoryBackend
) -> None:
    """Anybody who finds a lock free, or released, asks the contenders what they have seen, and does not lead below it.
    The error says whose word that is, and what to do if it is a lie; it advises no number."""
    async with session(store, "a") as a:
        if origin is Origin.RELEASED:
            async with a.lock("x").hold():
                pass
        other = MemoryDriver(store)
        lease = await other.grant_lease("c", 1000)
        record = Record(holder="c", instance="c-1", host="h", pid=1, since="", version="0", names=("x",), **told)
        await other.announce(lease, "standby/c", record.to_bytes())
        said = r"c-1 on h under standby/c says that 9999 .*Delete that key"
        with pytest.raises(TokenWentBack, match=said) as error:
            await Election(a).lead("x", Bot())
        assert "at least" not in str(error.value)
        assert holder(store, "x") is None
        await other.withdraw(lease, "standby/c")
        async with a.lock("x").hold() as hold:
            assert hold.origin is origin, "a candidate that was refused leaves the last word as it was"


async def test_what_a_contender_knows_of_another_lock_counts_for_that_one(store: MemoryBackend) -> None:
    """A token of another lock, however large, keeps nobody from this one."""
    other = MemoryDriver(store)
    lease = await other.grant_lease("c", 1000)
    told = {"y": 9999}
    record = Record(holder="c", instance="c", host="h", pid=1, since="", version="0", seen=9999, tokens=told)
    await other.announce(lease, "standby/c", record.to_bytes())
    async with session(store, "a") as a:
        async with a.lock("x").hold():
            pass
        with pytest.raises(TokenWentBack):
            await a.lock("y").acquire()


@pytest.mark.parametrize("settle", [True, False])
async def test_every_body_settles(settle: bool, store: MemoryBackend) -> None:
    """Under a lock that was found free no body begins, and no job, before `settle` is over, unless it says that it may;
    under one that was released it begins at once."""
    began: list[float] = []

    async def body(term: Term) -> None:
        began.append(clock.now())
        await asyncio.sleep(1)

    async def job(term: Term) -> None:
        began.append(clock.now())

    async with session(store, "a") as a:
        await a.lease()
        election, start = Election(a), clock.now()
        running = asyncio.ensure_future(election.run(job, "x"))
        await election.lead("x", body, settle=settle)
        await running
        assert all((each - start >= TIMING.settle) is settle for each in began)
        start = clock.now()
        await Election(a).lead("x", body)
        assert began[-1] - start < 0.1


@pytest.mark.parametrize("steps", range(12))
async def test_who_is_cancelled_when_it_has_settled_holds_nothing(steps: int, store: MemoryBackend) -> None:
    """In whichever step of the loop a cancellation comes, from the end of the settling to the begin of the work, the
    lock is given away."""
    async with session(store, "a") as a:
        await a.lease()
        leading = asyncio.ensure_future(Election(a).lead("x", lambda term: term.wait_step_down()))
        await asyncio.sleep(TIMING.settle)  # nobody else wants it, and no time passes until it is granted
        assert a.context.claims.holds
        for _ in range(steps):
            await asyncio.sleep(0)
        leading.cancel()
        await asyncio.wait([leading])
        assert not a.context.claims.holds
        await asyncio.sleep(1)
        assert holder(store, "x") is None


@pytest.mark.parametrize("what", ["stopped", "lost"])
async def test_a_term_that_ends_while_it_settles_has_no_body(what: str, store: MemoryBackend) -> None:
    """When it is stopped, or the lock is lost, before it has settled, no body begins and nothing is held."""
    began = False

    async def body(term: Term) -> None:
        nonlocal began
        began = True

    async with session(store, "a") as a:
        await a.lease()
        election = Election(a)
        leading = asyncio.ensure_future(election.lead("x", body))
        await asyncio.sleep(TIMING.settle / 2)
        assert holder(store, "x") == "a"
        if what == "lost":
            store.stranger_deletes(key_of("x"))
            await asyncio.sleep(TIMING.settle / 4)
        election.stop("test")
        await leading
        assert not began
        await asyncio.sleep(1)
        assert holder(store, "x") is None
