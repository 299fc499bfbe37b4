"""A store that is restored from a snapshot behind the backs of those who lead and wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.aio import until
from support.sessions import TIMING, holder, key_of, session, standby

from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election, Term
from cluster_lock.errors import TokenWentBack
from cluster_lock.session import Session
from cluster_lock.testing.faulty import FaultyDriver, slow_reply
from cluster_lock.values import Entry

pytestmark = pytest.mark.virtual


class Bot:
    """Leads x while it may; `refused`: why it may not."""

    def __init__(self, session: Session) -> None:
        self.session, self.election = session, Election(session)
        self.tokens: list[int] = []
        self.term: Term | None = None
        self.refused: str | None = None
        self.beside: Bot | None = None
        """Who must not work when we begin to."""
        self.living = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        try:
            await self.election.lead("x", self._work)
        except TokenWentBack as error:
            self.refused = str(error)

    async def _work(self, term: Term) -> None:
        assert self.beside is None or self.beside.term is None, "two work"
        self.tokens.append(term.fencing_token)
        self.term = term
        try:
            await term.wait_step_down()
        finally:
            self.term = None

    async def hands_over(self, to: Bot) -> None:
        assert self.term is not None
        await asyncio.sleep(1)  # so that it has settled, and the heir stands by
        self.term.step_down("test", to=to.session.context.identity.instance)
        await until(lambda: to.term is not None)

    async def stop(self) -> None:
        self.election.stop()
        await self.living


async def decided(*bots: Bot) -> None:
    """Until one leads, for longer than a lease lasts that nobody renews, or none may."""
    for _ in range(3 * int(TIMING.ttl)):
        await asyncio.sleep(1)
    assert any(bot.term for bot in bots) or all(bot.refused for bot in bots)
    for bot in bots:
        assert sorted(set(bot.tokens)) == bot.tokens
        assert bot.refused is None or "leader/x" in bot.refused


@pytest.mark.parametrize("bump", [0, 1_000_000])
@pytest.mark.parametrize("hand_overs", [1, 2])
async def test_somebody_leads_again_or_all_say_why(bump: int, hand_overs: int, store: MemoryBackend) -> None:
    """After a restore to a moment at which a living lease held the lock, unawares of it now, somebody
    leads with a larger token than ever, or everybody has said that nobody may; whether or not watches hear of it."""
    async with session(store, "a") as one, session(store, "b") as other:
        a, b = Bot(one), Bot(other)
        await until(lambda: a.term is not None or b.term is not None)
        first, second = (a, b) if a.term else (b, a)
        await asyncio.sleep(1)
        saved = store.save()
        await first.hands_over(second)
        if hand_overs == 2:
            await second.hands_over(first)
        largest = max(*a.tokens, *b.tokens)
        store.restore(saved, bump=bump)
        await decided(a, b)
        if bump:
            assert a.term is not None or b.term is not None
            assert max(a.tokens[-1], b.tokens[-1]) > largest
        await a.stop()
        await b.stop()
        assert holder(store, "x") is None


@pytest.mark.parametrize("bump", [0, 1_000_000])
async def test_a_row_that_is_free_again_is_led_or_refused(bump: int, store: MemoryBackend) -> None:
    """After a restore to a moment at which nobody held the lock, those who wait for its holder of then hear of it."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(session(store, name)) for name in "ab"]
        await asyncio.gather(one.lease(), other.lease())
        async with one.lock("x").hold():
            pass
        saved = store.save()
        a, b = Bot(one), Bot(other)
        await until(lambda: a.term is not None or b.term is not None)
        first, second = (a, b) if a.term else (b, a)
        await first.hands_over(second)
        store.restore(saved, bump=bump)
        await decided(a, b)
        await a.stop()
        await b.stop()


@pytest.mark.parametrize("bump", [0, 1_000_000])
@pytest.mark.parametrize("knows", [False, True], ids=["begins", "stands by"])
async def test_released_may_be_the_word_of_an_older_term(knows: bool, bump: int, store: MemoryBackend) -> None:
    """After a restore to a moment at which the lock was released, nobody begins to work beside the leader of a later
    term who has not heard of the restore yet: neither who has just begun, nor who knows of that term."""
    async with session(store, "a") as one, session(store, "b") as other:
        await other.lease()
        async with one.lock("x").hold():
            await asyncio.sleep(TIMING.settle)
        saved = store.save()
        a = Bot(one)
        await until(lambda: a.term is not None)
        b = Bot(other) if knows else None
        await asyncio.sleep(1)
        store.restore(saved, bump=bump)
        b = b or Bot(other)
        b.beside = a
        await decided(a, b)
        await a.stop()
        await b.stop()
        assert a.tokens or b.tokens


async def test_a_lock_that_nobody_wants_any_more_is_not_held_after_a_restore(store: MemoryBackend) -> None:
    """A lock that stands again under the living lease of a process that has gone on to something else is released."""
    async with session(store, "a") as a, a.lock("other").hold():
        async with a.lock("x").hold():
            saved = store.save()
        await asyncio.sleep(10 * TIMING.ttl)  # so long ago that nobody follows the key any more
        store.restore(saved, bump=1_000_000)
        assert holder(store, "x") == "a"
        await asyncio.sleep(TIMING.ttl + TIMING.renew_every + 1)
        assert holder(store, "x") is None


async def test_what_was_just_given_away_is_released_again_after_a_restore(store: MemoryBackend) -> None:
    """Also by a process that has heard of nothing since its release: what a later read shows is no old news."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, a.lock("other").hold():
        async with a.lock("x").hold():
            saved = store.save()
            driver.always("wait_changed", slow_reply(1000))
            driver.down()  # the wait that is under way ends, and the next one hears nothing
            driver.up()
        store.restore(saved, bump=1_000_000)
        assert holder(store, "x") == "a"
        await asyncio.sleep(TIMING.ttl + TIMING.renew_every + 1)
        assert holder(store, "x") is None


async def test_a_contender_is_seen_again_after_a_restore(store: MemoryBackend) -> None:
    """A contender record that the restore took away is written again."""
    async with session(store, "a") as a, session(store, "b") as b:
        await b.lease()
        async with a.lock("x").hold():
            saved = store.save()
            waiting = asyncio.ensure_future(b.lock("x").acquire())
            await asyncio.sleep(1)
            assert standby(store, "b").lease is not None
            store.restore(saved, bump=1_000_000)
            assert standby(store, "b").lease is None
            await asyncio.sleep(TIMING.ttl + TIMING.renew_every + 1)
            assert standby(store, "b").lease is not None
        await (await waiting).end({})


async def test_an_answer_to_a_question_from_before_proves_nothing(store: MemoryBackend) -> None:
    """A read that was sent before something newer was known, and is answered after that, is old news and no restore."""
    driver = FaultyDriver(MemoryDriver(store))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        await a.lease()
        with a.context.watch.following("leader/x"):
            await until(lambda: "leader/x" in a.context.watch.entries)
            driver.next("read", slow_reply(2))
            late = asyncio.ensure_future(a.context.watch.read(["leader/x"]))
            await asyncio.sleep(1)
            async with b.lock("x").hold() as hold:
                await until(lambda: a.context.watch.entries["leader/x"].lease == hold.grant.lease.id)
                assert (await late).entries["leader/x"].index < hold.grant.index
                assert a.context.watch.entries["leader/x"].lease == hold.grant.lease.id


async def test_the_same_answer_to_a_later_question_is_proof(store: MemoryBackend) -> None:
    """A read that was sent when something newer was known shows that the store was set back: nothing else that was
    known counts any more, and what it says does."""
    async with session(store, "a") as a, session(store, "b") as b:
        await a.lease()
        async with b.lock("y").hold():
            pass
        saved = store.save()
        with a.context.watch.following("leader/x", "leader/y"):
            async with b.lock("x").hold() as hold:
                await until(lambda: a.context.watch.entries["leader/x"].lease == hold.grant.lease.id)
                known: dict[str, Entry] = a.context.watch.entries.copy()
                store.index, before = 2, store.index
                store.stranger_deletes(key_of("x"))
                await a.context.watch.read(["leader/x"])
                assert a.context.watch.entries["leader/x"].index < known["leader/x"].index
                assert (
                    "leader/y" not in a.context.watch.entries
                    or a.context.watch.entries["leader/y"] is not known["leader/y"]
                )
                store.index = before
                store.restore(saved)
