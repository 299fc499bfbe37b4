"""Real aiogram against the simulator: what a bot sees of each rule."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiogram import Bot
from aiogram.exceptions import (
    ClientDecodeError,
    RestartingTelegram,
    TelegramAPIError,
    TelegramConflictError,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.types import Update
from support import aio
from support.aiogram_bot import aiogram_bot
from support.botapi import TEXT_OTHER, TEXT_WEBHOOK, TOKEN

from cluster_lock.testing.telegram import Fault, TelegramSimulator


async def parked(simulator: TelegramSimulator, bot: Bot, **arguments: Any) -> asyncio.Task[list[Update]]:
    """A long poll of `bot` that has arrived and waits."""
    before = simulator.bot(TOKEN).parked
    task = asyncio.create_task(bot.get_updates(timeout=20, **arguments))
    await aio.until(lambda: simulator.bot(TOKEN).parked not in (None, before))
    return task


async def test_a_bot_knows_itself_and_gets_its_updates() -> None:
    """getMe, getUpdates with an acknowledgement, sendMessage, getWebhookInfo."""
    async with TelegramSimulator(strict=True) as simulator, aiogram_bot(simulator.url) as bot:
        me = await bot.me()
        assert (me.id, me.is_bot) == (42, True)
        simulator.push_many(42, 3, chats=[7, -1001234567890])
        first, second, third = await bot.get_updates()
        assert [update.message and update.message.text for update in (first, second, third)] == ["1", "1", "2"]
        rest = await bot.get_updates(offset=second.update_id + 1)
        assert [update.update_id for update in rest] == [third.update_id]
        assert third.message is not None
        sent = await bot.send_message(third.message.chat.id, "answer")
        assert (sent.chat.id, sent.text) == (7, "answer")
        assert (await bot.get_webhook_info()).pending_update_count == 1


@pytest.mark.parametrize(
    "kind",
    [
        "message",
        "edited_message",
        "channel_post",
        "edited_channel_post",
        "callback_query",
        "inline_query",
        "chat_member",
        "my_chat_member",
        "message_reaction",
    ],
)
async def test_every_kind_of_update_is_one_that_aiogram_understands(kind: str) -> None:
    """What is built here passes aiogram's validation and has its kind and its chat."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url) as bot:
        await bot.get_updates(allowed_updates=[kind])
        simulator.push(42, kind=kind, chat_id=-1005, user_id=9, text="👍")
        [update] = await bot.get_updates(offset=1)
        assert update.event_type == kind
        sender = getattr(update.event, "from_user", None)
        assert sender is None or sender.id == 9
        assert simulator.oracle.updates()[0].chat == (9 if kind == "inline_query" else -1005)


async def test_a_command_is_marked_as_one() -> None:
    """A text that begins with a slash carries the entity by which bots recognize commands."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url) as bot:
        simulator.push(42, text="/start now")
        [update] = await bot.get_updates()
        assert update.message is not None
        [entity] = update.message.entities or []
        assert (entity.type, entity.offset, entity.length) == ("bot_command", 0, 6)


async def test_two_pollers_end_each_others_polls() -> None:
    """The newest wins, each conflict goes to the one that polled before, and the second of them comes 3 s late."""
    async with (
        TelegramSimulator() as simulator,
        aiogram_bot(simulator.url) as a,
        aiogram_bot(simulator.url, client="b") as b,
    ):
        first = await parked(simulator, a)
        second = await parked(simulator, b)
        with pytest.raises(TelegramConflictError, match=TEXT_OTHER):
            await first
        third = await parked(simulator, a)
        assert not second.done()
        simulator.jump(3)
        with pytest.raises(TelegramConflictError, match=TEXT_OTHER):
            await second
        simulator.push(42)
        assert len(await third) == 1
        report = simulator.oracle.report()
        assert (report.overlapping_polls, report.conflicts_live) == (2, 2)
        conflicts = report.findings["conflicts_live"]
        assert [case["client"] for case in conflicts] == ["a", "b"]


async def test_a_cancelled_poll_costs_its_successor_nothing() -> None:
    """Cancel on one side, poll on the other: the only 409 goes to the dead socket."""
    async with (
        TelegramSimulator(strict=True) as simulator,
        aiogram_bot(simulator.url) as a,
        aiogram_bot(simulator.url, client="b") as b,
    ):
        old = await parked(simulator, a)
        old.cancel()
        [item] = simulator.oracle.polls()
        await aio.until(lambda: item.poll.ended is not None)
        new = await parked(simulator, b)
        simulator.push(42)
        assert len(await new) == 1
        assert simulator.oracle.report().overlapping_polls == 0


async def test_an_acknowledgement_survives_the_loss_of_its_answer() -> None:
    """The connection breaks after the server did its work: a network error, and the updates below are gone."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url) as bot:
        ids = simulator.push_many(42, 3)
        await bot.get_updates()
        simulator.inject(Fault("drop", after_processing=True))
        with pytest.raises(TelegramNetworkError):
            await bot.get_updates(offset=ids[1])
        assert [update.update_id for update in await bot.get_updates(offset=1)] == ids[1:]
        acked = [update.acked is not None for update in simulator.oracle.updates()]
        assert acked == [True, False, False]


async def test_the_same_offset_in_quick_succession_gets_one_update() -> None:
    """Calls with one offset at 0, 0.6, 0.8 and 1.4 s return 5, 5, 1 and 5 updates."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url) as bot:
        simulator.push_many(42, 5)
        sizes = []
        for pause in (0.0, 0.6, 0.05, 0.6):
            simulator.jump(pause)
            sizes.append(len(await bot.get_updates()))
        assert sizes == [5, 5, 1, 5]


async def test_a_probe_with_the_incumbents_offset_waits_and_evicts() -> None:
    """getUpdates(timeout=0) beside a long poll with the same offset takes 3 s and gives the incumbent a 409."""
    async with (
        TelegramSimulator() as simulator,
        aiogram_bot(simulator.url) as incumbent,
        aiogram_bot(simulator.url, client="probe") as probe,
    ):
        poll = await parked(simulator, incumbent)
        held = simulator.bot(TOKEN).parked
        task = asyncio.create_task(probe.get_updates(timeout=0))
        with pytest.raises(TelegramConflictError):
            await poll
        assert simulator.bot(TOKEN).parked not in (None, held)
        simulator.jump(2.5)
        assert simulator.bot(TOKEN).parked is not None
        simulator.jump(0.5)
        assert await task == []


async def test_a_poll_that_is_answered_at_once_evicts_nobody() -> None:
    """With updates at hand, or with timeout=0 and another offset, the parked poll stays where it is."""
    async with (
        TelegramSimulator(strict=True) as simulator,
        aiogram_bot(simulator.url) as incumbent,
        aiogram_bot(simulator.url, client="probe") as probe,
    ):
        poll = await parked(simulator, incumbent)
        assert await probe.get_updates(offset=5, timeout=0) == []
        assert simulator.bot(TOKEN).parked is not None
        simulator.push(42)
        assert len(await poll) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=409, description=TEXT_WEBHOOK), TelegramConflictError),
        (Fault(status=401, description="Unauthorized"), TelegramUnauthorizedError),
        (Fault(status=404, description="Not Found"), TelegramNotFound),
        (Fault(retry_after=30), TelegramRetryAfter),
        (Fault(status=500, description="Internal Server Error: restart"), RestartingTelegram),
        (Fault(status=500, description="Internal Server Error"), TelegramServerError),
        (Fault(status=421, description="Misdirected Request: unallowed token specified"), TelegramAPIError),
        (Fault(status=502), ClientDecodeError),
        (Fault(status=500, body='{"ok":false}'), TypeError),
        (Fault("drop"), TelegramNetworkError),
    ],
    ids=lambda value: None if isinstance(value, Fault) else value.__name__,
)
async def test_errors_reach_a_bot_as_aiograms_exceptions(fault: Fault, error: type[Exception]) -> None:
    """Each answer of the server (or of the proxy before it) becomes exactly this exception, and then it is over."""
    async with TelegramSimulator(strict=True) as simulator, aiogram_bot(simulator.url) as bot:
        simulator.inject(fault)
        with pytest.raises(error) as caught:
            await bot.get_updates()
        assert type(caught.value) is error
        if isinstance(caught.value, TelegramRetryAfter):
            assert caught.value.retry_after == 30
        assert await bot.get_updates(offset=1) == []


async def test_the_servers_own_errors_reach_a_bot_too() -> None:
    """A webhook, a revoked token and a restarting server, each as the server itself says it."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url) as bot:
        simulator.set_webhook(42, "https://example.org/hook")
        with pytest.raises(TelegramConflictError, match="webhook is active"):
            await bot.get_updates()
        await bot.delete_webhook()
        simulator.restarting(42)
        with pytest.raises(RestartingTelegram):
            await bot.get_updates()
        simulator.restore(42)
        simulator.revoke(TOKEN)
        with pytest.raises(TelegramUnauthorizedError):
            await bot.get_me()


async def test_a_malformed_token_is_not_found_at_the_cloud() -> None:
    """api.telegram.org's front answers 404, which aiogram calls TelegramNotFound."""
    async with TelegramSimulator() as simulator, aiogram_bot(simulator.url, "042:simulator-token-not-real") as bot:
        with pytest.raises(TelegramNotFound):
            await bot.get_me()


async def test_sticky_mode_gives_the_newcomer_the_conflict() -> None:
    """Even when the incumbent's socket is long dead, until its timeout has passed."""
    async with (
        TelegramSimulator(conflict="sticky") as simulator,
        aiogram_bot(simulator.url) as a,
        aiogram_bot(simulator.url, client="b") as b,
    ):
        dead = await parked(simulator, a)
        dead.cancel()
        with pytest.raises(TelegramConflictError):
            await b.get_updates(timeout=20)
        simulator.jump(20)
        assert await b.get_updates(offset=1) == []
