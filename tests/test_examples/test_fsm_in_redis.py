"""docs/examples/fsm_in_redis.py: a dialogue goes on wherever its bot is led."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support import aio
from support.examples import BOT, Stages, answers

from cluster_lock.testing.servers import RedisServer
from cluster_lock.testing.telegram import Fault, TelegramSimulator

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_a_dialogue_survives_a_hand_over(redis: RedisServer, stage: Stages) -> None:
    """A dialogue that one instance began is ended by the next one, which knows all that was said."""
    async with TelegramSimulator(strict=True) as simulator:
        with stage("fsm_in_redis.py", simulator, REDIS_URL=redis.url) as it:
            first, second = await it.start_all("a", "b")
            await said(simulator, 1, "/order", "What would you like?")
            await said(simulator, 1, "soup", "How many times soup?")
            first.send(signal.SIGTERM)
            assert await first.ended() == 0
            await said(simulator, 1, "two", "A number, please.")
            await said(simulator, 1, "2", "Ordered: 2 x soup")
            await second.says("is handled", times=2)
            second.send(signal.SIGTERM)
            assert await second.ended() == 0
            assert second.output.count("is handled") == 2


async def test_a_message_that_comes_again_after_a_crash_answers_no_second_question(
    redis: RedisServer, stage: Stages
) -> None:
    """A leader is killed between the handling of a message and its confirmation: the message comes again, and is not
    taken for the answer to the next question."""
    async with TelegramSimulator(strict=True) as simulator:
        with stage("fsm_in_redis.py", simulator, REDIS_URL=redis.url) as it:
            first, second = await it.start_all("a", "b")
            await said(simulator, 2, "/order", "What would you like?")
            await aio.until(lambda: not simulator.oracle.report().pending and simulator.bot(BOT).parked is not None)
            # The next poll, which would confirm what the parked one brings, gets no answer.
            simulator.inject(Fault("black_hole", method="getUpdates"))
            polls = len(simulator.oracle.polls())
            await said(simulator, 2, "7", "How many times 7?")
            await first.says("is handled", times=2)
            await aio.until(lambda: len(simulator.oracle.polls()) > polls)
            first.send(signal.SIGKILL)
            await first.ended()
            await second.says("is handled")
            [again] = [
                update
                for update in simulator.oracle.updates()
                if len({delivery.client for delivery in update.delivered}) == 2
            ]
            assert again.seq == 2
            await said(simulator, 2, "3", "Ordered: 3 x 7")
        assert len(answers(simulator)) == 3


async def said(simulator: TelegramSimulator, chat: int, text: str, answer: str) -> None:
    """Say something in a chat, and wait for the one answer that it gets."""
    before = len(answers(simulator))
    simulator.push(BOT, chat_id=chat, text=text)
    await aio.until(lambda: len(answers(simulator)) > before)
    assert answers(simulator)[before:] == [answer]
