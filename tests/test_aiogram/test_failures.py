"""Every way in which a getUpdates fails, and what the poller does about it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from support import aio
from support.polling import BOT, QUICK, QUICK_TIMES, TOKEN, Handled, client_bot, dispatcher_with, polling, until

from cluster_lock import clock
from cluster_lock.aiogram import fetching, recovery, state
from cluster_lock.aiogram.conflicts import Conflict, ConflictRules
from cluster_lock.aiogram.poller import Poller
from cluster_lock.aiogram.recovery import reaches_telegram
from cluster_lock.aiogram.rules import Rules
from cluster_lock.errors import BackendUnavailable, LockLost
from cluster_lock.telegram.errors import ConflictPersists, TelegramTokenRefused
from cluster_lock.testing.telegram import Fault, TelegramSimulator
from cluster_lock.values import EndCode

FAST = ConflictRules(first=0.05, longest=0.2)
HASTY = replace(QUICK_TIMES, poll_timeout=0.4)


@pytest.fixture(autouse=True)
def no_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first seconds of a term are spared from counting conflicts; tests cannot wait for their end."""
    monkeypatch.setattr(recovery, "PREDECESSOR", -100.0)


def test_conflicts_are_verified_retried_and_become_a_storm_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """409: the lock is verified, kept, and the poll repeated; three in a minute are said once, with both names."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            conflict = Fault(status=409, description="Conflict: terminated by other getUpdates request", times=5)
            simulator.inject(conflict)
            rules = Rules(conflict=FAST, instance="this-host")
            async with polling(simulator, rules=rules) as it:
                await until(lambda: it.poller.state.storm)
                await until(lambda: it.double.verified == 5)
                pushed = simulator.push(BOT)
                await it.handled.until(lambda: it.handled.finished == [pushed])
                assert it.poller.state.storm, "over only after a quiet minute"
                assert it.poller.state.conflicts_60s == 5
                assert it.double.term.request is None

    caplog.set_level(logging.INFO, "cluster_lock")
    aio.run(main())
    said = [record.getMessage() for record in caplog.records if "outside of the lock" in record.getMessage()]
    assert len(said) == 1
    assert "bot 42" in said[0]
    assert "this-host holds telegram/42" in said[0]


def test_a_lock_of_one_host_is_the_first_suspect(caplog: pytest.LogCaptureFixture) -> None:
    """Where the lock serves one host alone the second conflict in a row is an error, which says that and what to
    choose."""

    async def main() -> None:
        async with TelegramSimulator() as simulator:
            simulator.inject(Fault(status=409, description="Conflict: terminated by other getUpdates request", times=2))
            async with polling(simulator, rules=Rules(conflict=FAST, one_host=True)) as it:
                await until(lambda: it.double.verified == 2)
                pushed = simulator.push(BOT)
                await it.handled.until(lambda: it.handled.finished == [pushed])

    aio.run(main())
    (said,) = [record for record in caplog.records if "outside of the lock" in record.getMessage()]
    assert said.levelno == logging.ERROR
    assert "serves one host: for several choose etcd, consul, redis or postgres" in said.getMessage()


async def test_a_rogue_poller_does_not_stop_the_guarded_one() -> None:
    """With somebody else polling the same bot all the time, every update is handled all the same."""
    async with TelegramSimulator() as simulator, polling(simulator, rules=Rules(conflict=FAST)) as it:
        await simulator.rogue_on(BOT, poll_timeout=1, pause=0.2)
        await until(lambda: it.poller.state.conflicts_60s >= 1)
        ids = simulator.push_many(BOT, 20, chats=(1, 2, 3))
        await it.handled.until(lambda: len(it.handled.finished) == 20)
        await simulator.rogue_off(BOT)
        assert sorted(it.handled.ids) == ids


async def test_a_conflict_that_tells_of_a_lost_lock_stops_the_polling_at_once() -> None:
    """When the backend says after a 409 that the lock is not ours, nothing more is sent, before anybody cancels us."""
    async with TelegramSimulator() as simulator, polling(simulator, rules=Rules(conflict=FAST)) as it:
        await until(lambda: simulator.bot(BOT).parked is not None)

        async def verify() -> None:
            it.double.stop_at = clock.now()
            raise LockLost("the key is gone")

        it.double.term._verify = verify
        await simulator.rogue_on(BOT, poll_timeout=1)
        await until(lambda: it.poller.state.waiting == "the lease was not renewed in time")
        assert len([1 for seen in simulator.oracle.polls() if seen.poll.client == "one"]) == 1
        await simulator.rogue_off(BOT)


async def test_an_unreachable_backend_at_a_conflict_leaves_the_decision_to_the_lease() -> None:
    """409 while the backend does not answer: the lease is still good, so the poller goes on."""
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault(status=409, description="Conflict: terminated by other getUpdates request"))
        async with polling(simulator, rules=Rules(conflict=FAST)) as it:
            it.double.verify_error = BackendUnavailable("no answer")
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert it.double.verified == 1


@pytest.mark.parametrize("policy", ["exit", "step_down", "callback", "give_up"])
async def test_policies_for_a_storm(policy: str) -> None:
    """on_conflict: exit ends the work, step_down asks for it, a callback is told of each; retries can be limited."""
    told: list[Conflict] = []
    rules = {
        "exit": replace(FAST, on_conflict="exit"),
        "step_down": replace(FAST, on_conflict="step_down"),
        "callback": replace(FAST, on_conflict=told.append),
        "give_up": replace(FAST, give_up_after=4),
    }[policy]
    async with TelegramSimulator() as simulator:
        text = "Conflict: terminated by other getUpdates request"
        simulator.inject(Fault(status=409, description=text, times=6))
        async with polling(simulator, rules=Rules(conflict=rules)) as it:
            assert it.double.work is not None
            if policy == "callback":
                await until(lambda: len(told) == 6)
                assert [conflict.attempt for conflict in told] == [1, 2, 3, 4, 5, 6]
                assert [conflict.storm for conflict in told] == [False, False, True, True, True, True]
            elif policy == "step_down":
                request = await it.double.term.wait_request()
                assert (request.cool_down, request.reason.code) == (QUICK_TIMES.telegram_grace, EndCode.CONFLICTS)
            else:
                with pytest.raises(ConflictPersists):
                    await it.double.work
                assert len(simulator.oracle.polls()) == (3 if policy == "exit" else 5)


async def test_after_a_takeover_in_sticky_mode_the_poller_waits_its_turn_without_a_storm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the newcomer got the 409 until the old poll ends, the poller would wait and not cry storm."""
    monkeypatch.setattr(recovery, "PREDECESSOR", 5.0)
    async with TelegramSimulator(conflict="sticky") as simulator:
        async with polling(simulator, client="old") as old:
            await until(lambda: simulator.bot(BOT).parked is not None)
            await old.lose()
        async with polling(simulator, rules=Rules(conflict=replace(FAST, longest=0.4))) as it:
            await until(lambda: it.double.verified >= 3)
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert not it.poller.state.storm


async def test_a_webhook_is_another_matter_than_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook that is set makes no storm and is left alone: the poller waits and says what to do."""
    monkeypatch.setattr(recovery, "WEBHOOK", (0.05, 0.1))
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        await until(lambda: simulator.bot(BOT).parked is not None)
        simulator.set_webhook(BOT, "https://example.org/hook")
        await until(lambda: "a webhook is set" in (it.poller.state.waiting or ""))
        assert it.poller.state.conflicts_60s == 0
        assert it.double.verified == 0
        assert not simulator.calls("deleteWebhook")
        simulator.set_webhook(BOT, "")
        pushed = simulator.push(BOT)
        await it.handled.until(lambda: it.handled.finished == [pushed])


async def test_a_webhook_is_deleted_if_that_is_wanted_and_its_updates_are_kept() -> None:
    """delete_webhook: on_conflict removes the webhook, without dropping what waits for it."""
    async with TelegramSimulator() as simulator:
        simulator.set_webhook(BOT, "https://example.org/hook")
        pushed = simulator.push(BOT)
        async with polling(simulator, rules=Rules(delete_webhook="on_conflict")) as it:
            await it.handled.until(lambda: it.handled.finished == [pushed])
            [call] = simulator.calls("deleteWebhook")
            assert "drop_pending_updates" not in call.arguments


async def test_telegrams_pause_is_kept() -> None:
    """429: no getUpdates before retry_after has passed; the wait is deliberate and says its reason."""
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault(retry_after=1))
        async with polling(simulator) as it:
            await until(lambda: "pause of 1 s" in (it.poller.state.waiting or ""))
            await until(lambda: len(simulator.oracle.polls()) == 2)
            first, second = (seen.poll.arrived for seen in simulator.oracle.polls())
            assert 1 <= second - first < 3


REFUSALS = [(401, "Unauthorized"), (404, "Not Found")]


@pytest.mark.parametrize(("status", "text"), REFUSALS)
async def test_a_token_that_is_refused_twice_ends_the_work(
    status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """401 and 404 are the same on every server: at the second look, by getMe and later, the body raises
    TelegramTokenRefused, without the token in its text."""
    monkeypatch.setattr(recovery, "SECOND_LOOK", 0.1)
    async with TelegramSimulator() as simulator, polling(simulator) as it:
        simulator.inject(Fault(status=status, description=text, method=None, times=None))
        assert it.double.work is not None
        with pytest.raises(TelegramTokenRefused) as caught:
            await it.double.work
        assert "bot 42" in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert len(simulator.oracle.polls()) == 1


@pytest.mark.parametrize(("status", "text"), REFUSALS)
async def test_one_refusal_of_a_token_is_not_the_end(status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before a Bot API server that starts anew may say 401 or 404: nothing is lost by it."""
    monkeypatch.setattr(recovery, "SECOND_LOOK", 0.1)
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault(status=status, description=text))
        async with polling(simulator) as it:
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])


UNUSABLE = [
    Fault(status=502),
    Fault(status=500, description="Internal Server Error: restart"),
    Fault(status=503, body='{"ok":false,"error_code":503}'),
    Fault(status=200, body="[]"),
    Fault(status=200, body='{"ok":true,"result":[{"no":"id"}]}'),
    Fault("drop"),
    Fault("drop", after_processing=True),
]


@pytest.mark.parametrize("fault", UNUSABLE, ids=lambda fault: fault.body or fault.description or fault.action)
async def test_answers_that_cannot_be_used_are_waited_out(fault: Fault) -> None:
    """HTML from a proxy, a restart, an error without a word, nonsense, a dropped connection: the poller tries again."""
    async with TelegramSimulator() as simulator:
        simulator.inject(fault)
        async with polling(simulator) as it:
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert it.poller.state.last_error is None


async def test_a_getupdates_that_is_never_answered_is_given_up_and_tried_on_a_fresh_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A black hole costs poll_timeout plus the slack, not 70 s, and no used connection is trusted afterwards."""
    monkeypatch.setattr(fetching, "REQUEST_SLACK", 0.2)
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault("black_hole"))
        async with polling(simulator, times=HASTY) as it:
            await it.bot.get_me()
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert it.poller.state.last_error is None


async def test_a_getupdates_that_does_not_even_time_out_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session or middleware that never comes back is cancelled 20 s after it should have, and the poller goes on."""
    monkeypatch.setattr(fetching, "DEAF_AFTER", 0.3)
    stuck = [True]

    async def hang(make_request: Any, bot: Any, method: Any) -> Any:
        if stuck.pop() if stuck else False:
            await asyncio.Event().wait()
        return await make_request(bot, method)

    async with TelegramSimulator() as simulator, client_bot(simulator) as bot:
        bot.session.middleware.register(hang)
        handled = Handled()
        poller = Poller(dispatcher_with(simulator, handled), bot, Rules(timing=QUICK, times=HASTY))
        async with polling(simulator) as it:
            await it.lose()
            it.poller, it.handled = poller, handled
            it.next_term()
            pushed = simulator.push(BOT)
            await handled.until(lambda: handled.finished == [pushed])


def test_deaf_is_who_should_poll_and_does_not() -> None:
    """The state says deaf when no getUpdates has ended for poll_timeout + 20 s, and not during a deliberate wait."""
    now = [1000.0]
    with clock.replaced(lambda: now[0]):
        facts = state.Facts(42, "telegram/42", 20)
        facts.begin(facts.window)
        now[0] += 39
        assert not facts.snapshot().deaf
        now[0] += 2
        assert facts.snapshot().deaf
        with facts.waiting("Telegram asks for a pause of 300 s"):
            now[0] += 300
            assert not facts.snapshot().deaf
        assert not facts.snapshot().deaf, "the wait was a sign of life"
        now[0] += 41
        assert facts.snapshot().deaf
        facts.poll_ended("TimeoutError: no answer")
        snapshot = facts.snapshot()
        assert (snapshot.deaf, snapshot.last_poll_age, snapshot.last_success_age) == (False, 0, None)
        facts.end()
        now[0] += 100
        assert not facts.snapshot().deaf, "a standby is not supposed to poll"


def test_failing_is_who_polls_in_vain() -> None:
    """The state says failing when every getUpdates for poll_timeout + 20 s has failed, in spite of the waits between
    them; a standby, or a new term, is not."""
    now = [1000.0]
    with clock.replaced(lambda: now[0]):
        facts = state.Facts(42, "telegram/42", 20)
        facts.begin(facts.window)
        for _ in range(5):
            assert not facts.snapshot().failing
            facts.asks()
            facts.poll_ended("Bad Gateway")
            with facts.waiting("Telegram's answer cannot be used"):
                now[0] += 10
        assert facts.snapshot().failing
        assert not facts.snapshot().deaf, "it does poll"
        facts.end()
        assert not facts.snapshot().failing
        facts.begin(facts.window)
        assert not facts.snapshot().failing
        facts.asks()
        facts.poll_ended("Bad Gateway")
        now[0] += 50
        assert facts.snapshot().failing
        facts.poll_ended()
        assert not facts.snapshot().failing


async def test_a_leader_that_cannot_reach_telegram_offers_its_place_to_who_can() -> None:
    """Unreachable for telegram_grace: step down for one that answers that it reaches Telegram, and stay out as
    long."""
    times = replace(QUICK_TIMES, telegram_grace=0.5)
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault("drop", times=None))
        async with polling(simulator, times=times) as it:
            began = clock.now()
            request = await it.double.term.wait_request()
            assert clock.now() - began >= 0.5
            assert (request.cool_down, request.reason.code) == (0.5, EndCode.OUT_OF_REACH)
            assert request.willing is not None
            assert request.willing({"telegram": True})
            assert not request.willing({"telegram": False})
            assert not request.willing({})
            it.double.term.decline_step_down()
            simulator.faults.clear()
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert it.double.term.request is None, "nobody could: it stayed"


@pytest.mark.slow
async def test_other_failures_than_the_network_do_not_make_a_leader_step_down() -> None:
    """502 for longer than telegram_grace: another server would get the same, so nobody steps down."""
    times = replace(QUICK_TIMES, telegram_grace=0.3)
    async with TelegramSimulator() as simulator:
        simulator.inject(Fault(status=502, times=3))
        async with polling(simulator, times=times) as it:
            pushed = simulator.push(BOT)
            await it.handled.until(lambda: it.handled.finished == [pushed])
            assert it.double.term.request is None


async def test_a_contender_answers_in_time_whether_it_reaches_telegram() -> None:
    """An invited standby says what it knows within the time of an invitation, without a getUpdates and without
    raising."""
    async with TelegramSimulator() as simulator, client_bot(simulator) as bot:
        poller = Poller(dispatcher_with(simulator, Handled()), bot)
        assert reaches_telegram(await poller.answer())
        simulator.inject(Fault("drop", method="getMe"))
        assert not reaches_telegram(await poller.answer())
        simulator.inject(Fault("delay", delay=3, method="getMe"))
        began = clock.now()
        assert not reaches_telegram(await poller.answer())
        assert clock.now() - began < 2.8
        await until(lambda: poller._looking is not None and poller._looking.done())
        simulator.inject(Fault("delay", delay=0.6, method="getMe"))
        assert reaches_telegram(await poller.answer()), "the slow look of before is known by now"
        await poller.close()
        assert simulator.oracle.polls() == []
