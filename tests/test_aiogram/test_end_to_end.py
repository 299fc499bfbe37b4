"""Several instances with real sessions and elections on one memory backend, against the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.methods import GetUpdates
from support import aio
from support.polling import BOT, QUICK, QUICK_TIMES, ClientBot, Handled, dispatcher_with, until, without_sockets
from support.sessions import holder, key_of, session

from cluster_lock import clock
from cluster_lock.aiogram import LeaseGate, Poller, Rules
from cluster_lock.aiogram.running import run_pollers
from cluster_lock.aiogram.stopping import PollerStopping
from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.election import Election, Role, Term
from cluster_lock.telegram.errors import RequestUnguarded
from cluster_lock.testing.telegram import Fault, TelegramSimulator

LOCK = f"telegram/{BOT}"
TIMING = replace(QUICK, drain=3)
STEADY = replace(TIMING, ttl=60)
"""No pause of a busy machine costs such a lease: each term ends because it was asked to."""
TIMES = replace(QUICK_TIMES, poll_timeout=5)


@dataclass
class Instance:
    """One process slot: a session, an election, a poller for the one bot."""

    name: str
    election: Election
    poller: Poller
    handled: Handled
    bot: ClientBot
    running: asyncio.Task[Any]

    async def stop(self) -> None:
        self.election.stop()
        await self.running


@asynccontextmanager
async def instance(
    simulator: TelegramSimulator, store: MemoryBackend, name: str, handled: Handled, **options: Any
) -> AsyncIterator[Instance]:
    times, timing = options.pop("times", TIMES), options.pop("timing", TIMING)
    async with session(store, name, timing=timing) as one:
        election = Election(one)
        bot = ClientBot(simulator, name)
        dispatcher = dispatcher_with(simulator, handled, name, disable_fsm=True)

        async def elected(bot_: Any, term: Term) -> None:
            bot.term = term.fencing_token

        async def over(bot_: Any, term: Term) -> None:
            simulator.oracle.term_ended(name, term.fencing_token)

        poller = Poller(
            dispatcher, bot, Rules(timing=timing, times=times, on_elected=elected, on_step_down=over, instance=name)
        )
        running = asyncio.ensure_future(
            run_pollers(dispatcher, [poller], election, {}, PollerStopping(), drain=timing.drain)
        )
        try:
            yield Instance(name, election, poller, handled, bot, running)
        finally:
            election.stop()
            await asyncio.wait([running])
            await bot.session.close()


def is_standby(one: Instance) -> bool:
    return one.election.role(LOCK) is not Role.LEADER


async def leader(*instances: Instance) -> Instance:
    await until(lambda: any(one.election.role(LOCK) is Role.LEADER for one in instances))
    return next(one for one in instances if one.election.role(LOCK) is Role.LEADER)


def verdict(simulator: TelegramSimulator) -> dict[str, int]:
    report = simulator.oracle.report()
    names = "lost out_of_order overlapping_polls conflicts_live late_arrivals sent_after_term pending"
    return {name: value for name in names.split() if (value := getattr(report, name))}


async def handle_a_little(message: Any, **data: Any) -> None:
    await asyncio.sleep(0.02)


async def test_graceful_hand_overs_lose_and_double_nothing() -> None:
    """Under traffic the leader is stopped, and started again, three times over: each update once, no conflict."""
    store, handled = MemoryBackend(), Handled(handle_a_little)
    async with TelegramSimulator() as simulator:
        await simulator.traffic_on(BOT, rate=40, chats=range(1, 9))
        async with instance(simulator, store, "b", handled, timing=STEADY) as standby:
            for _ in range(3):
                async with instance(simulator, store, "a", handled, timing=STEADY) as other:
                    await until(lambda: len(handled.finished) > 10)
                    old = await leader(standby, other)
                    if old is standby:
                        term = standby.election.term(LOCK)
                        assert term is not None
                        term.step_down("hand it over")
                        await until(lambda: other.election.role(LOCK) is Role.LEADER)
                    await asyncio.sleep(0.3)
                    await other.stop()
                await until(lambda: standby.election.role(LOCK) is Role.LEADER)
                handled.runs.clear()
            await simulator.traffic_off(BOT)
            await until(lambda: simulator.oracle.report().pending == 0)
        assert verdict(simulator) == {}
        assert simulator.oracle.report().duplicated == 0
        assert len(simulator.oracle.changes()) >= 5


@pytest.mark.parametrize("how", ["key deleted", "lease ended"])
async def test_a_lock_that_is_taken_away_is_followed_at_once(how: str) -> None:
    """An operator deletes the key or ends the lease: the leader stops at once, the next one settles in, none
    overlap."""
    store, handled = MemoryBackend(), Handled(handle_a_little)
    async with TelegramSimulator() as simulator:
        await simulator.traffic_on(BOT, rate=40, chats=range(1, 9))
        async with (
            instance(simulator, store, "a", handled) as one,
            instance(simulator, store, "b", handled) as two,
        ):
            took = []
            for _ in range(3):
                old = await leader(one, two)
                handled.runs.clear()
                await handled.until(lambda: len(handled.finished) > 10)
                taken = clock.now()
                if how == "key deleted":
                    store.stranger_deletes(key_of(LOCK))
                else:
                    lease = next(lease for lease, who in store.leases().items() if who.startswith(old.name))
                    store.end_lease(lease)
                await until(partial(is_standby, old))
                took.append(clock.now() - taken)
                await leader(one, two)
            assert min(took) < 0.5, "by the watch, and not by the next renewal"
            await simulator.traffic_off(BOT)
            await until(lambda: simulator.oracle.report().pending == 0)
        assert verdict(simulator) == {}


async def test_a_leader_cut_off_from_telegram_hands_over_to_one_that_is_not() -> None:
    """After telegram_grace the leader steps down for the standby that answered that it reaches Telegram."""
    times = replace(TIMES, telegram_grace=1)
    store, handled = MemoryBackend(), Handled()
    async with (
        TelegramSimulator() as simulator,
        instance(simulator, store, "a", handled, times=times, timing=STEADY) as one,
    ):
        await until(lambda: simulator.bot(BOT).parked is not None)
        async with instance(simulator, store, "b", handled, times=times, timing=STEADY) as two:
            await until(lambda: two.election.role(LOCK) is Role.STANDBY)
            simulator.inject(Fault("drop", client="a", method=None, times=None))
            pushed = simulator.push(BOT)
            assert pushed is not None
            # The poll that is parked already brings this one; it fails after it.
            await handled.until(lambda: handled.finished == [pushed])
            await until(lambda: holder(store, LOCK) == "b")
            later = simulator.push(BOT)
            assert later is not None
            await handled.until(lambda: handled.finished == [pushed, later])
            assert one.election.role(LOCK) is not Role.LEADER
            simulator.faults.clear()
            await until(lambda: simulator.oracle.report().pending == 0)
        assert (verdict(simulator), simulator.oracle.report().duplicated) == ({}, 0)


@pytest.mark.slow
async def test_a_leader_stays_when_telegram_is_down_for_everybody() -> None:
    """Nobody reaches Telegram: the lock stays where it is instead of going round."""
    times = replace(TIMES, telegram_grace=0.5)
    store, handled = MemoryBackend(), Handled()
    async with (
        TelegramSimulator() as simulator,
        instance(simulator, store, "a", handled, times=times, timing=STEADY) as one,
    ):
        await until(lambda: simulator.bot(BOT).parked is not None)
        async with instance(simulator, store, "b", handled, times=times, timing=STEADY):
            term = one.election.term(LOCK)
            assert term is not None
            simulator.inject(Fault("drop", method=None, times=None))
            simulator.push(BOT)
            await until(lambda: term.request is not None)
            await until(lambda: term.request is None)
            assert holder(store, LOCK) == "a"
            simulator.faults.clear()
            await until(lambda: simulator.oracle.report().pending == 0)
            assert one.election.term(LOCK) is term


async def test_the_gate_holds_aiograms_own_poller(store: MemoryBackend) -> None:
    """Two programs with dispatcher.start_polling behind a gate: only the leader's getUpdates goes out."""
    async with TelegramSimulator() as simulator:
        programs = []
        for name in ("a", "b"):
            ready = asyncio.Event()
            programs.append(asyncio.ensure_future(gated(simulator, store, name, ready)))
            await ready.wait()
        await until(lambda: simulator.bot(BOT).parked is not None)
        simulator.push_many(BOT, 20, chats=(1, 2, 3))
        await until(lambda: simulator.oracle.report(drained=False).updates_handled == 20)
        assert {seen.poll.client for seen in simulator.oracle.polls()} == {"a"}
        programs[0].cancel()
        await asyncio.wait(programs[:1])
        simulator.push_many(BOT, 20, chats=(1, 2, 3))
        await until(lambda: simulator.oracle.report(drained=False).updates_handled == 40)
        programs[1].cancel()
        await asyncio.wait(programs)
        assert verdict(simulator) == {}
        assert simulator.oracle.report().duplicated == 0


async def gated(
    simulator: TelegramSimulator,
    store: MemoryBackend,
    name: str,
    ready: asyncio.Event,
    handled: Handled | None = None,
    elections: dict[str, Election] | None = None,
    **options: Any,
) -> None:
    async with session(store, name, timing=STEADY) as one:
        election, bot = Election(one), ClientBot(simulator, name)
        dispatcher = dispatcher_with(simulator, handled or Handled(), name)
        if elections is not None:
            elections[name] = election
        async with LeaseGate(election, bot, timing=STEADY):
            polling = asyncio.ensure_future(dispatcher.start_polling(bot, handle_signals=False, **options))
            await until(lambda: election.role(LOCK) is not Role.STOPPED)
            ready.set()
            try:
                await asyncio.wait([polling])
            finally:
                await dispatcher.stop_polling()
                await polling


# aiogram leaves one behind when it is stopped while it waits for room.
@pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher._process_update' was never awaited")
@pytest.mark.parametrize("options", [{"handle_as_tasks": False}, {"tasks_concurrency_limit": 2}], ids=["one", "two"])
@pytest.mark.parametrize("how", ["the program stops", "an operator's step-down"])
async def test_the_gate_hands_over_what_aiogram_was_given_and_has_not_begun(how: str, options: dict[str, Any]) -> None:
    """Of a batch that is worked through a few at a time each update begins, here or at the heir: when the program stops
    none that has ended begins again; at a step-down what is in hand is begun here first, and nothing comes twice."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if len(ours.runs) > 2:
            await release.wait()

    store, ours, heirs = MemoryBackend(), Handled(work), Handled()
    elections: dict[str, Election] = {}
    async with TelegramSimulator() as simulator:
        ids = simulator.push_many(BOT, 10)
        programs = []
        for name, handled in (("a", ours), ("b", heirs)):
            ready = asyncio.Event()
            programs.append(asyncio.ensure_future(gated(simulator, store, name, ready, handled, elections, **options)))
            await ready.wait()
        await ours.until(lambda: len(ours.runs) > 2)
        if how == "the program stops":
            programs[0].cancel()
            await asyncio.wait(programs[:1])
        else:
            term = elections["a"].term(LOCK)
            assert term is not None
            term.step_down("hand it over")
            await until(lambda: term.stepping_down)
            release.set()
        later = simulator.push(BOT)
        await heirs.until(lambda: later in heirs.ids)
        await until(lambda: simulator.oracle.report(drained=False).pending == 0)
        for program in programs:
            program.cancel()
        await asyncio.wait(programs)
        assert sorted({*ours.ids, *heirs.ids}) == [*ids, later]
        assert set(ours.finished).isdisjoint(heirs.ids)
        if how == "an operator's step-down":
            assert (ours.ids, heirs.ids) == (ids, [later])


async def test_an_answer_that_comes_after_the_lock_is_dropped_by_the_gate(store: MemoryBackend) -> None:
    """An update in flight when the lock is lost reaches no handler here; the next leader gets it."""
    async with TelegramSimulator() as simulator:
        ready = asyncio.Event()
        program = asyncio.ensure_future(gated(simulator, store, "a", ready))
        await until(lambda: simulator.bot(BOT).parked is not None)
        simulator.inject(Fault("delay", delay=0.5, after_processing=True))
        simulator.push(BOT)
        await until(lambda: len(simulator.oracle.polls()) >= 2)
        store.stranger_deletes(key_of(LOCK))
        await until(lambda: simulator.oracle.report(drained=False).updates_handled == 1)
        program.cancel()
        await asyncio.wait([program])
        assert simulator.oracle.report().lost == 0


async def test_the_gate_lets_nothing_through_when_a_connection_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent over a connection that could not be reset: the gate stays shut, the lock is given away, and
    leaving it raises."""
    without_sockets(monkeypatch)
    store = MemoryBackend()
    async with TelegramSimulator() as simulator:
        api = TelegramAPIServer.from_base(simulator.url)
        async with session(store, "a", timing=TIMING) as one:
            plain = AiohttpSession(api=api)
            election, bot = Election(one), Bot(f"{BOT}:TOKEN", session=plain)
            simulator.push(BOT)
            with pytest.raises(RequestUnguarded):
                async with LeaseGate(election, bot, timing=TIMING):
                    for _ in range(2):
                        with pytest.raises(RequestUnguarded):
                            await asyncio.wait_for(bot(GetUpdates(timeout=1)), 10)
                    await until(lambda: election.role(LOCK) is Role.STOPPED)
            assert simulator.oracle.polls() == []
            await bot.session.close()


@pytest.mark.parametrize("foreign", [False, True], ids=["followed", "of its own"])
def test_the_gate_takes_every_session_and_leaves_it_as_it_is(foreign: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Middlewares on both sides of the gate see the getUpdates, and after it the session has what it had before; one
    that makes its requests in its own way makes them, and it is said what that costs."""

    class Own(AiohttpSession):
        async def make_request(self, bot: Bot, method: Any, timeout: int | None = None) -> Any:
            seen.append("own")
            return await super().make_request(bot, method, timeout)

    seen: list[str] = []

    def middleware(name: str) -> Any:
        async def see(make_request: Any, bot: Bot, method: Any) -> Any:
            seen.append(name)
            return await make_request(bot, method)

        return see

    async def main() -> None:
        async with TelegramSimulator() as simulator, session(MemoryBackend(), "a", timing=TIMING) as one:
            its = (Own if foreign else AiohttpSession)(api=TelegramAPIServer.from_base(simulator.url))
            async with Bot(f"{BOT}:TOKEN", session=its) as bot:
                its.middleware.register(middleware("outer"))
                before = {name: value for name, value in vars(its).items() if not name.startswith("_")}
                pushed = simulator.push(BOT)
                async with LeaseGate(Election(one), bot, timing=TIMING):
                    its.middleware.register(middleware("inner"))
                    (update,) = await bot(GetUpdates(timeout=1))
                assert update.update_id == pushed
                assert seen == ["outer", "inner", *(["own"] if foreign else [])]
                assert {name: value for name, value in vars(its).items() if not name.startswith("_")} == before

    aio.run(main())
    assert ("make_request() of its own, so its getUpdates cannot be reset" in caplog.text) is foreign
