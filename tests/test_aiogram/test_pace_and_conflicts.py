"""Counting conflicts, growing pauses, and telling errors apart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
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
from aiogram.methods import GetUpdates

from cluster_lock import clock
from cluster_lock.aio import Backoff
from cluster_lock.aiogram.classify import Kind, classify
from cluster_lock.aiogram.conflicts import Conflicts
from cluster_lock.aiogram.pace import AGAIN, ALBUM, ALBUM_FOR, FEW, PollingPace
from cluster_lock.aiogram.state import Facts
from cluster_lock.aiogram.window import CROWDED, LIMIT, Window
from cluster_lock.testing.virtual_time import block

pytestmark = pytest.mark.virtual

TOKEN = "42:SECRET"
METHOD: Any = GetUpdates()

ERRORS: list[tuple[Exception, Kind]] = [
    (TelegramConflictError(METHOD, "Conflict: terminated by other getUpdates request; make sure"), Kind.CONFLICT),
    (TelegramConflictError(METHOD, "Conflict: can't use getUpdates method while webhook is active"), Kind.WEBHOOK),
    (TelegramConflictError(METHOD, "Conflict: terminated by setWebhook request"), Kind.WEBHOOK),
    (TelegramRetryAfter(METHOD, "Too Many Requests: retry after 7", 7), Kind.FLOOD),
    (TelegramUnauthorizedError(METHOD, "Unauthorized"), Kind.TOKEN),
    (TelegramNotFound(METHOD, "Not Found"), Kind.TOKEN),
    (TelegramServerError(METHOD, "Bad Gateway"), Kind.SERVER),
    (RestartingTelegram(METHOD, "Internal Server Error: restart"), Kind.SERVER),
    (TelegramAPIError(METHOD, "Misdirected Request"), Kind.SERVER),
    (ClientDecodeError("Failed to decode object", ValueError("no JSON"), "<html>502</html>"), Kind.SERVER),
    (TypeError("argument of type 'NoneType' is not iterable"), Kind.SERVER),
    (TelegramNetworkError(METHOD, "Request timeout error"), Kind.NETWORK),
    (TimeoutError(), Kind.NETWORK),
    (ConnectionResetError("reset"), Kind.NETWORK),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda value: type(value).__name__)
def test_errors_are_told_apart(error: Exception, kind: Kind) -> None:
    """Each way in which a getUpdates fails is one of six, by what has to be done about it."""
    failure = classify(error, TOKEN)
    assert failure.kind is kind
    assert failure.retry_after == (7 if kind is Kind.FLOOD else 0)


@pytest.mark.parametrize(("asked", "kept"), [(-5, 0), (3600, 3600), (10**9, 3600), (10**400, 3600)])
def test_a_pause_that_is_asked_for_has_an_end(asked: int, kept: int) -> None:
    """Whatever an answer asks for, nobody waits for less than nothing or for more than an hour."""
    assert classify(TelegramRetryAfter(METHOD, "Too Many Requests", asked), TOKEN).retry_after == kept


def test_no_text_of_an_error_holds_the_token_or_a_whole_page() -> None:
    """What is logged or shown of an error is one short line without the token."""
    page = "<html>\n" + "x" * 5000 + f"https://api.telegram.org/bot{TOKEN}/getUpdates"
    for error in (ClientDecodeError("Failed", ValueError("no"), page), OSError(f"no route to /bot{TOKEN}/getUpdates")):
        text = classify(error, TOKEN).text
        assert "SECRET" not in text
        assert "\n" not in text
        assert len(text) < 300


def test_three_conflicts_in_a_minute_are_a_storm_until_a_full_poll_and_a_quiet_minute() -> None:
    """A storm begins with the third conflict within 60 s; it ends with a poll that survived, 60 s after the last
    one."""
    conflicts = Conflicts()
    assert not conflicts.met(0)
    assert not conflicts.met(10)
    assert conflicts.met(20)
    assert conflicts.storm
    assert not conflicts.met(30), "it begins once"
    assert not conflicts.survived(40), "a quiet minute is missing"
    assert conflicts.in_row == 0
    assert conflicts.storm
    assert not conflicts.survived(89)
    assert conflicts.survived(91)
    assert not conflicts.storm


def test_conflicts_that_are_spread_out_are_no_storm() -> None:
    """Two in a minute are accidents, however often that happens."""
    conflicts = Conflicts()
    assert not any(conflicts.met(moment) for moment in range(0, 600, 31))


def test_the_first_conflicts_of_a_term_may_be_the_leader_before() -> None:
    """A tolerated conflict is waited out like any other, but does not make a storm."""
    conflicts = Conflicts()
    assert not any(conflicts.met(moment, tolerated=True) for moment in range(5))
    assert conflicts.in_row == 5
    assert conflicts.in_last_minute(5) == 0


def test_pauses_grow_to_their_limit_and_begin_anew() -> None:
    """Each wait is about twice the one before, never beyond the longest, and a success resets them."""
    pause = Backoff(1.0, 15.0)
    waits = [pause.next() for _ in range(8)]
    for wait, expected in zip(waits, [1, 2, 4, 8, 15, 15, 15, 15], strict=True):
        assert 0.8 * expected <= wait <= min(15.0, 1.2 * expected)
    pause.reset()
    assert pause.next() <= 1.2


@pytest.mark.parametrize("full", [True, False])
async def test_while_more_is_waiting_it_is_asked_for_early(full: bool) -> None:
    """After a full answer the next getUpdates goes out as soon as few of its updates are unconfirmed; after another
    one, a tenth of a second after the answer, as it would only be repeated."""
    window, _, pace = a_window_and_its_pace()
    began = clock.now()
    delivered = window.take(range(1, LIMIT + 1))
    pace.took(full=full)
    asking = asyncio.create_task(pace.wait())
    for one in delivered[: -FEW - 1]:
        pace.finished(moved=window.finish(one))
    await asyncio.sleep(0.05)
    assert not asking.done()
    pace.finished(moved=window.finish(delivered[-FEW - 1]))
    await asking
    assert clock.now() - began == pytest.approx(0.05 if full else 0.1)


def a_window_and_its_pace() -> tuple[Window, Facts, PollingPace]:
    window, facts = Window(), Facts(42, "telegram/42", 10.0)
    window.ask()
    pace = PollingPace(42, window, facts, lambda **_: None)
    pace.asks()
    pace.answered()
    return window, facts, pace


async def pause_of(pace: PollingPace) -> float:
    began = clock.now()
    await pace.wait()
    return clock.now() - began


async def test_the_pause_beside_a_handler_at_work() -> None:
    """Short, so that what is new begins soon; longer where the answers, which repeat everything, take their time; and
    after a part of an album as short as can be for a moment, as its other parts are on their way."""
    window, _, pace = a_window_and_its_pace()
    window.take([1, 2])
    window.ask()
    pace.took(full=False)
    assert await pause_of(pace) == pytest.approx(AGAIN[0])
    for took, pause in ((0.3, 0.6), (20.0, AGAIN[1])):
        pace.asks()
        block(took)
        pace.answered()
        assert await pause_of(pace) == pytest.approx(pause)
    pace.asks()
    pace.answered()
    pace.took(full=False, album=True)
    began, pauses = clock.now(), list[tuple[float, float]]()
    while clock.now() < began + 2 * ALBUM_FOR:
        pauses.append((clock.now() - began, await pause_of(pace)))
        pace.asks()
        pace.answered()
    for after, pause in pauses:
        assert pause == pytest.approx(ALBUM if after < ALBUM_FOR else AGAIN[0])
    assert len(pauses) > ALBUM_FOR / ALBUM


async def test_how_long_a_window_is_full() -> None:
    """Full once, it is until it is far from it: room for one more after each update that others wait for is none."""
    window, facts, pace = a_window_and_its_pace()
    delivered = window.take(range(1, LIMIT + 1))
    pace.took(full=False)
    waiting = asyncio.create_task(pace.wait())
    await asyncio.sleep(0.5)
    assert not facts.snapshot().window_full, "a burst"
    await asyncio.sleep(60)
    assert facts.snapshot().window_full
    pace.finished(moved=window.finish(delivered[0]))
    await waiting
    assert facts.snapshot().window_full_for == pytest.approx(60.5)
    for one in delivered[: LIMIT - CROWDED + 1]:
        window.finish(one)
    window.ask()
    await pace.wait()
    assert facts.snapshot().window_full_for is None
