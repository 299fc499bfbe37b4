"""In which order updates begin, what waits for what, and what waits for nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from aiogram.fsm.strategy import FSMStrategy
from aiogram.types import Update
from support.polling import BOT, QUICK, QUICK_TIMES, TOKEN, polling, until

from cluster_lock import clock
from cluster_lock.aiogram.lines import Lines, conversation, dialogue
from cluster_lock.aiogram.pace import AGAIN
from cluster_lock.aiogram.rules import Rules
from cluster_lock.testing.telegram import TelegramSimulator

CHAT, USER = {"id": 5, "type": "private"}, {"id": 6, "is_bot": False, "first_name": "x"}


@pytest.mark.parametrize(
    ("update", "key"),
    [
        ({"message": {"chat": CHAT, "from": USER}}, 5),
        ({"edited_channel_post": {"chat": CHAT}}, 5),
        ({"callback_query": {"from": USER, "message": {"chat": CHAT}}}, 5),
        ({"callback_query": {"from": USER, "inline_message_id": "1"}}, 6),
        ({"inline_query": {"from": USER, "query": ""}}, 6),
        ({"chat_member": {"chat": CHAT, "from": USER}}, 5),
        ({"message_reaction": {"chat": CHAT, "user": USER}}, 5),
        ({"poll_answer": {"poll_id": "1", "user": USER}}, 6),
        ({"poll_answer": {"poll_id": "1", "voter_chat": CHAT}}, 5),
        ({"poll": {"id": "1"}}, ("update", 9)),
        ({"something_new": {"chat": CHAT}}, 5),
        ({"something_new": "a word"}, ("update", 9)),
        ({}, ("update", 9)),
    ],
)
def test_what_keeps_updates_in_order(update: dict[str, Any], key: object) -> None:
    """By chat: the chat, else the sender, else the update stands for itself; for kinds that aiogram does not know,
    too."""
    assert conversation({"update_id": 9, **update}) == key


async def test_one_chat_is_in_order_and_chats_are_side_by_side() -> None:
    """Handlers of one chat never overlap and start in order; those of others do not wait for them."""

    async def work(message: Any, **data: Any) -> None:
        await asyncio.sleep(0.1)

    rules = Rules(order="chat")
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        simulator.push_many(BOT, 60, chats=range(1, 7))
        await it.handled.until(lambda: len(it.handled.finished) == 60)
        for chat in range(1, 7):
            runs = [run for run in it.handled.runs if run.chat == chat]
            assert [run.text for run in runs] == [str(number) for number in range(1, 11)]
            for earlier, later in pairwise(runs):
                assert earlier.end is not None
                assert earlier.end <= later.start
        took = max(run.end or 0 for run in it.handled.runs) - it.handled.runs[0].start
        assert took < 60 * 0.1 * 0.8, "the chats were side by side"


def part(chat: int, number: int, album: str | None) -> dict[str, Any]:
    """A message, of an album or on its own."""
    message = {"message_id": number, "date": int(time.time()), "chat": {**CHAT, "id": chat}, "text": str(number)}
    return {"message": {**message, "from": {**USER, "id": chat}, **({"media_group_id": album} if album else {})}}


@pytest.mark.parametrize("most", [100, 2])
async def test_the_parts_of_an_album_do_not_wait_for_each_other(most: int) -> None:
    """They begin in order, also one that is delivered later, and as many at once as may be; what comes before, behind
    or between them, and the next album, waits for the ends of all."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        if message.text == "1":
            await release.wait()

    rules = Rules(order="chat", max_concurrent=most)
    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work, rules=rules) as it:
        for number, album in enumerate((None, "a", "a", "a"), start=0):
            simulator.push_raw(BOT, part(5, number, album))
        await it.handled.until(lambda: it.handled.finished == it.handled.ids[:1] + it.handled.ids[2:4])
        for number, album in enumerate(("a", None, "a", "b", "b", None), start=4):
            simulator.push_raw(BOT, part(5, number, album))
        await it.handled.until(lambda: len(it.handled.finished) == 4)
        await until(lambda: it.poller.state.pending == 6)
        assert [run.text for run in it.handled.runs] == ["0", "1", "2", "3", "4"]
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == 10)
        runs = it.handled.runs
        assert [run.text for run in runs] == [str(number) for number in range(10)]
        for alone in (0, 5, 6, 9):
            assert all(run.end is not None and run.end <= runs[alone].start for run in runs[:alone])
            assert all((runs[alone].end or 0) <= run.start for run in runs[alone + 1 :])
        await until(lambda: simulator.oracle.report().pending == 0)


@pytest.mark.parametrize("how", ["sequential", "two chats", "stuck"])
async def test_what_an_album_does_not_change(how: str) -> None:
    """With `sequential` parts wait like all others, another chat's messages are not of the album, and behind a part
    that does not end, though it is out of its time, the chat goes on."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        while message.text == "1" and not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    timing = replace(QUICK, cancel_grace=0.2)
    times = replace(QUICK_TIMES, handler_timeout=0.3 if how == "stuck" else 30)
    rules = Rules(order="chat", sequential=how == "sequential")
    async with (
        TelegramSimulator() as simulator,
        polling(simulator, work, rules=rules, timing=timing, times=times) as it,
    ):
        simulator.push_raw(BOT, part(5, 1, "a"))
        simulator.push_raw(BOT, part(6 if how == "two chats" else 5, 2, "a"))
        simulator.push_raw(BOT, part(5, 3, None))
        await until(lambda: it.poller.state.pending + len(it.handled.finished) >= 3)
        begin = {"sequential": ["1"], "two chats": ["1", "2"], "stuck": ["1", "2", "3"]}[how]
        await it.handled.until(lambda: len(it.handled.runs) == len(begin))
        await it.handled.until(lambda: len(it.handled.finished) == len(begin) - 1)
        assert [run.text for run in it.handled.runs] == begin
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == 3)
        assert [run.text for run in it.handled.runs] == ["1", "2", "3"]


async def test_an_album_that_is_on_its_way() -> None:
    """After a part of an album the next one begins sooner than anything else does beside a handler at work: who
    collects them waits for a tenth of a second."""
    release, delays = asyncio.Event(), list[float]()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        for number in range(8):
            simulator.push_raw(BOT, part(5, number, f"album {number // 2}"))
            pushed = clock.now()
            await it.handled.until(lambda count=number: len(it.handled.runs) > count)  # type: ignore[misc]
            if number % 2:
                delays.append(clock.now() - pushed)
        assert min(delays) < AGAIN[0] * 2 / 3, delays
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == 8)


async def test_updates_begin_in_order_and_run_side_by_side() -> None:
    """Without an order, as with aiogram: of one chat too they begin in the order of delivery, and none waits for the
    end of another one."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    async with TelegramSimulator(strict=True) as simulator, polling(simulator, work) as it:
        ids = simulator.push_many(BOT, 30, chats=(1, 2))
        await it.handled.until(lambda: len(it.handled.runs) == 30)
        assert it.handled.ids == ids
        assert it.handled.finished == []
        release.set()
        await until(lambda: simulator.oracle.report().pending == 0)


QUERIES: dict[str, dict[str, Any]] = {
    "inline_query": {"query": "x", "offset": ""},
    "callback_query": {"chat_instance": "1", "data": "x"},
    "shipping_query": {
        "invoice_payload": "x",
        "shipping_address": {
            **dict.fromkeys(("state", "city", "street_line1", "street_line2", "post_code"), "x"),
            "country_code": "FR",
        },
    },
    "pre_checkout_query": {"currency": "XTR", "total_amount": 1, "invoice_payload": "x"},
}


def held_messages() -> tuple[Dispatcher, list[str], asyncio.Event]:
    """A Dispatcher whose handler of messages notes each text as it begins, and ends when the event is set."""
    dispatcher, begun, release = Dispatcher(), list[str](), asyncio.Event()

    @dispatcher.message()
    async def message(message: Any) -> None:
        begun.append(message.text)
        await release.wait()

    return dispatcher, begun, release


@pytest.mark.parametrize(
    "rules", [Rules(order="chat"), Rules(order="member"), Rules(max_concurrent=2)], ids=["chat", "member", "two"]
)
async def test_a_query_with_a_clock_overtakes_what_waits(rules: Rules) -> None:
    """An inline, callback, shipping or pre-checkout query of somebody waits for none of his updates, and where too much
    runs at once, for no update that waits too."""
    dispatcher, begun, release = held_messages()

    async def query(query: Any, event_update: Update) -> None:
        begun.append(event_update.event_type)

    for kind in QUERIES:
        dispatcher.observers[kind].register(query)
    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, rules=rules) as it:
        for number in range(3):
            simulator.push_raw(BOT, part(6, number, None))
        at_once = 1 if rules.order != "none" else 2
        await until(lambda: it.poller.state.pending == 3 and len(begun) == at_once)
        for kind, query_data in QUERIES.items():
            simulator.push_raw(BOT, {kind: {"id": "1", "from": USER, **query_data}})
        await until(lambda: it.poller.state.pending == 7 or len(begun) > at_once)
        if rules.order == "none":
            release.set()
        await until(lambda: len(begun) >= at_once + 4)
        assert begun[at_once : at_once + 4] == list(QUERIES)
        release.set()
        await until(lambda: len(begun) == 7)


@pytest.mark.parametrize("rules", [Rules(), Rules(order="chat"), Rules(order="member")], ids=["none", "chat", "member"])
async def test_a_query_overtakes_nothing_that_need_not_wait(rules: Rules) -> None:
    """Where there is room for all of an answer they start in the order of delivery: a message that sets a state, then
    the press of the button that needs it."""
    dispatcher, begun = Dispatcher(), list[str]()

    @dispatcher.message()
    async def message(message: Any) -> None:
        begun.append(message.text)

    @dispatcher.callback_query()
    async def query(query: Any) -> None:
        begun.append(f"query {query.id}")

    async with TelegramSimulator() as simulator:
        for number in range(3):
            simulator.push(BOT, chat_id=number + 1, text=str(number))
            simulator.push_raw(BOT, {"callback_query": {"id": str(number), "from": USER, **QUERIES["callback_query"]}})
        async with polling(simulator, dispatcher=dispatcher, rules=rules):
            await until(lambda: len(begun) == 6)
    assert begun == ["0", "query 0", "1", "query 1", "2", "query 2"]


@pytest.mark.parametrize("rules", [Rules(sequential=True), Rules(max_concurrent=1, limited=True)], ids=["one", "limit"])
async def test_whoever_limits_the_concurrency_gets_the_order_of_delivery(rules: Rules) -> None:
    """With a limit of the caller's own a query waits like all others, as with aiogram."""
    dispatcher, begun, release = held_messages()

    @dispatcher.inline_query()
    async def query(query: Any) -> None:
        begun.append("query")

    async with TelegramSimulator() as simulator, polling(simulator, dispatcher=dispatcher, rules=rules) as it:
        simulator.push_raw(BOT, part(6, 1, None))
        simulator.push_raw(BOT, part(6, 2, None))
        simulator.push_raw(BOT, {"inline_query": {"id": "1", "from": USER, **QUERIES["inline_query"]}})
        await until(lambda: it.poller.state.pending == 3)
        release.set()
        await until(lambda: len(begun) == 3)
        assert begun == ["1", "2", "query"]


@pytest.mark.parametrize(
    ("strategy", "same"),
    [(FSMStrategy.USER_IN_CHAT, []), (FSMStrategy.CHAT, [(5, 7)]), (FSMStrategy.GLOBAL_USER, [(8, 6)])],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_member_is_what_the_state_of_a_dialogue_is_kept_by(
    strategy: FSMStrategy, same: list[tuple[int, int]]
) -> None:
    """With `order: member` what waits for each other are the updates that share a state of aiogram's FSM, by the
    strategy of that Dispatcher; what has no state waits for nothing."""
    dispatcher, bot = Dispatcher(fsm_strategy=strategy), Bot(TOKEN)

    def key(chat: int, user: int) -> object:
        sent = part(chat, 1, None)
        sent["message"]["from"] = {**USER, "id": user}
        return dialogue(dispatcher, bot, Update.model_validate({"update_id": 9, **sent}))

    assert key(5, 6) == key(5, 6)
    for chat, user in [(5, 7), (8, 6)]:
        assert (key(5, 6) == key(chat, user)) == ((chat, user) in same)
    assert dialogue(dispatcher, bot, Update(update_id=9)) == ("update", 9)


async def test_members_of_a_group_do_not_wait_for_each_other() -> None:
    """With `order: member` somebody's next message begins after his last one, and beside those of others."""
    release = asyncio.Event()

    async def work(message: Any, **data: Any) -> None:
        await release.wait()

    rules = Rules(order="member")
    async with TelegramSimulator() as simulator, polling(simulator, work, rules=rules) as it:
        for user in (1, 2, 1, 3, 2):
            simulator.push(BOT, chat_id=-5, user_id=user)
        await until(lambda: it.poller.state.pending == 5)
        await it.handled.until(lambda: len(it.handled.runs) == 3)
        assert [run.text for run in it.handled.runs] == ["1", "2", "4"]
        release.set()
        await it.handled.until(lambda: len(it.handled.finished) == 5)


async def test_the_default_keeps_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an order no update enters a line: its path is the shorter one."""

    def enter(self: Lines, job: object) -> bool:
        raise AssertionError("a line")

    monkeypatch.setattr(Lines, "enter", enter)
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        simulator.push_many(BOT, 20, chats=(1, 2))
        await it.handled.until(lambda: len(it.handled.finished) == 20)
