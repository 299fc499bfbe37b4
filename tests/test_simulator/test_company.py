"""What moves by itself in the simulator: its clock, steady traffic, a rogue poller."""

from __future__ import annotations

import asyncio

import pytest
from support import aio
from support.botapi import TOKEN

from cluster_lock.testing.telegram import Clock, LoopClock, ManualClock, TelegramSimulator
from cluster_lock.testing.telegram.clocks import sleep


def test_a_manual_clock_calls_in_order_and_at_the_moment() -> None:
    """Each call happens at its own time, one made by another call included, and a cancelled one never."""
    clock = ManualClock(start=0.0)
    calls: list[tuple[str, float]] = []

    def note(name: str) -> None:
        calls.append((name, clock.now()))

    def early() -> None:
        note("early")
        clock.call_at(1.5, lambda: note("made by early"))

    clock.call_at(2.0, lambda: note("late"))
    clock.call_at(1.0, early)
    clock.call_at(1.2, lambda: note("cancelled")).cancel()
    clock.jump(1.9)
    assert calls == [("early", 1.0), ("made by early", 1.5)]
    clock.jump(0.1)
    assert calls[-1] == ("late", 2.0)


async def test_the_loops_clock_brings_forward_what_a_jump_makes_due() -> None:
    """Calls and sleeps that wait for later happen at once after the jump; those beyond it still wait."""
    clock = LoopClock()
    start = clock.now()
    due = asyncio.Event()
    clock.call_at(start + 100, due.set)
    asleep = asyncio.create_task(sleep(clock, 100))
    far = asyncio.create_task(sleep(clock, 10_000))
    await asyncio.sleep(0)
    clock.jump(100)
    await due.wait()
    await asleep
    assert clock.now() >= start + 100
    assert not far.done()
    far.cancel()
    await asyncio.wait([far])
    assert not clock.timers


@pytest.mark.parametrize("clock", [ManualClock()])
def test_no_clock_runs_backwards(clock: Clock) -> None:
    """The server's time is monotonic."""
    with pytest.raises(ValueError, match="monotonic"):
        clock.jump(-1)


async def test_traffic_pushes_its_whole_number_to_each_chat_in_turn() -> None:
    """200 messages a second for 0.25 s are 50 messages, numbered within each chat, whatever the loop's delays."""
    async with TelegramSimulator() as simulator:
        await simulator.traffic_on(42, rate=200, chats=[1, 2], seconds=0.25)
        await aio.until(lambda: not simulator.state()["bots"]["42"]["traffic"])
        assert await simulator.traffic_off(42) == 50
        updates = simulator.oracle.updates(42)
        assert [(update.chat, update.seq) for update in updates[:4]] == [(1, 1), (2, 1), (1, 2), (2, 2)]
        assert len(updates) == 50


async def test_traffic_can_be_stopped() -> None:
    """Without an end it goes on until it is switched off, which says how much there was."""
    async with TelegramSimulator() as simulator:
        await simulator.traffic_on(42, rate=1000)
        await aio.until(lambda: len(simulator.oracle.updates()) > 20)
        pushed = await simulator.traffic_off(42)
        assert pushed == len(simulator.oracle.updates())
        assert await simulator.traffic_off(42) == 0


@pytest.mark.parametrize("acks", [False, True])
async def test_a_rogue_polls_and_takes_updates(acks: bool) -> None:
    """It is a client like any other in the books, and takes updates away for good only when it acknowledges."""
    async with TelegramSimulator() as simulator:
        await simulator.rogue_on(42, pause=0.01, acks=acks)
        await aio.until(lambda: simulator.bot(TOKEN).parked is not None)
        simulator.push(42)
        [update] = simulator.oracle.updates()
        await aio.until(lambda: update.acked if acks else update.delivered)
        assert update.delivered[0].client == "rogue"
        assert len(simulator.bot(42).queue) == (0 if acks else 1)
        await simulator.rogue_off(42)
        assert simulator.state()["bots"]["42"]["rogue"] is False


async def test_a_rogue_comes_back_after_every_conflict() -> None:
    """It fights for the bot for as long as it lives."""
    async with TelegramSimulator() as simulator:
        await simulator.rogue_on(42, pause=0.01)
        simulator.revoke(42)
        await aio.until(lambda: len(simulator.oracle.polls()) >= 3)
        simulator.restore(42)
        await aio.until(lambda: simulator.bot(TOKEN).parked is not None)
