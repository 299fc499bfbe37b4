"""The rules of getUpdates, in stepped time and without sockets."""

from __future__ import annotations

import pytest
from support.botapi import TEXT_OTHER, Desk, ids, refusal, result


def test_the_newest_poll_wins_and_the_old_one_gets_the_conflict() -> None:
    """A second long poll parks, and the first one is answered 409 at once."""
    desk = Desk()
    old = desk.poll(timeout=50)
    new = desk.poll(client="b", timeout=50)
    assert refusal(old) == (409, TEXT_OTHER)
    assert new.answer is None
    [update_id] = desk.push()
    desk.wait(0.01)
    assert ids(new) == [update_id]


def test_a_second_conflict_within_three_seconds_is_held_for_three_seconds() -> None:
    """Within 3 s of a conflict the next loser gets its 409 exactly 3 s late, and no update meanwhile."""
    desk = Desk()
    first, second, third = (desk.poll(client=name, timeout=50) for name in "abc")
    assert refusal(first)[0] == 409
    assert second.answer is None
    desk.push()
    desk.wait(2.99)
    assert second.answer is None
    assert len(ids(third)) == 1
    desk.wait(0.02)
    assert refusal(second) == (409, TEXT_OTHER)


def test_a_held_conflict_does_not_extend_the_throttle() -> None:
    """The pause runs from the last conflict that was answered at once, not from one that was held."""
    desk = Desk()
    desk.poll(client="a", timeout=50)
    desk.poll(client="b", timeout=50)
    desk.wait(2.0)
    held = desk.poll(client="c", timeout=50)
    desk.wait(1.0)
    desk.poll(client="d", timeout=50)
    assert refusal(held)[0] == 409


def test_a_poll_without_timeout_leaves_the_parked_one_alone() -> None:
    """timeout=0 with a new offset is answered at once with nothing, and nobody gets a conflict."""
    desk = Desk()
    parked = desk.poll(timeout=50)
    probe = desk.poll(client="b", offset=5)
    assert result(probe) == []
    assert parked.answer is None


def test_a_poll_that_finds_updates_leaves_the_parked_one_alone() -> None:
    """Updates at hand go to the newcomer and, when the parked poll wakes, to that one too."""
    desk = Desk()
    parked = desk.poll(timeout=50)
    pushed = desk.push()
    newcomer = desk.poll(client="b", timeout=50, offset=1)
    assert ids(newcomer) == pushed
    desk.wait(0.01)
    assert ids(parked) == pushed


@pytest.mark.parametrize(("timeout", "after"), [(0, 0.0), (0, 2.99), (2, 0.0)])
def test_a_short_poll_with_the_same_offset_becomes_a_long_one(timeout: int, after: float) -> None:
    """The same offset within 3 s and timeout below 3: it is parked for 3 s, and the incumbent gets the conflict."""
    desk = Desk()
    incumbent = desk.poll(timeout=50)
    desk.wait(after)
    probe = desk.poll(client="probe", timeout=timeout)
    assert refusal(incumbent)[0] == 409
    desk.wait(2.99)
    assert probe.answer is None
    desk.wait(0.02)
    assert result(probe) == []


def test_a_short_poll_with_the_same_offset_after_three_seconds_stays_short() -> None:
    """Once 3 s have passed since the call before, timeout=0 is answered at once again."""
    desk = Desk()
    desk.poll()
    desk.wait(3.0)
    assert result(desk.poll()) == []


def test_the_same_offset_within_half_a_second_gets_one_update() -> None:
    """Limits of calls at 0, 0.6, 0.8 and 1.4 s with one offset: only the third comes too early and gets one update."""
    desk = Desk()
    desk.push(5)
    sizes = []
    for pause in (0.0, 0.6, 0.2, 0.6):
        desk.wait(pause)
        sizes.append(len(ids(desk.poll())))
    assert sizes == [5, 5, 1, 5]


def test_another_offset_is_never_throttled() -> None:
    """Calls in quick succession that go forward get full batches."""
    desk = Desk()
    pushed = desk.push(9)
    first = ids(desk.poll(limit=3))
    second = ids(desk.poll(limit=3, offset=first[-1] + 1))
    third = ids(desk.poll(limit=3, offset=second[-1] + 1))
    assert first + second + third == pushed


def test_an_update_is_acknowledged_by_a_higher_offset_only() -> None:
    """Delivering an update does not remove it; the arrival of a later offset does, whatever becomes of the answer."""
    desk = Desk()
    pushed = desk.push(3)
    assert ids(desk.poll()) == pushed
    assert desk.pending == 3
    lost_answer = desk.poll(offset=pushed[1], timeout=0)
    assert lost_answer.answer is not None
    assert desk.pending == 2


def test_an_offset_just_behind_the_end_acknowledges_everything() -> None:
    """Up to ten ids beyond the end an offset is taken as it is."""
    desk = Desk()
    pushed = desk.push(3)
    assert result(desk.poll(offset=pushed[-1] + 11)) == []
    assert desk.pending == 0


@pytest.mark.parametrize("away", [12, 5_000_000, -100_001])
def test_an_offset_out_of_range_is_served_from_the_head(away: int) -> None:
    """More than ten ids beyond the end, or 100,000 before the head: everything is served, nothing forgotten."""
    desk = Desk()
    pushed = desk.push(3)
    start = pushed[-1] if away > 0 else pushed[0]
    assert ids(desk.poll(offset=start + away)) == pushed
    assert desk.pending == 3


def test_a_negative_offset_drops_all_but_the_last_for_good() -> None:
    """offset=-2 leaves the last two updates, and the others never come again."""
    desk = Desk()
    pushed = desk.push(5)
    assert ids(desk.poll(offset=-2)) == pushed[-2:]
    assert ids(desk.poll()) == pushed[-2:]


@pytest.mark.parametrize(("limit", "size"), [(0, 1), (-5, 1), (2, 2), (1000, 100), ("many", 1), ("", 100)])
def test_limit_is_clamped(limit: object, size: int) -> None:
    """limit is 1 to 100, 100 when it is not given, and what is no number counts as 0."""
    desk = Desk()
    desk.push(120)
    assert len(ids(desk.poll(limit=limit))) == size


@pytest.mark.parametrize(("timeout", "seconds"), [(20, 20), (60, 50), ("7 s", 7)])
def test_a_long_poll_is_answered_with_nothing_at_its_timeout(timeout: object, seconds: int) -> None:
    """It lasts as long as it says, at most 50 s, and then gets an empty list."""
    desk = Desk()
    query = desk.poll(timeout=timeout)
    desk.wait(seconds - 0.01)
    assert query.answer is None
    desk.wait(0.02)
    assert result(query) == []


def test_an_answer_is_cut_at_four_mebibytes() -> None:
    """Ten updates of half a mebibyte do not fit one answer; the rest comes with the next call."""
    desk = Desk()
    sent = [desk.simulator.push(42, text="x" * 500_000) for _ in range(10)]
    first = ids(desk.poll())
    rest = ids(desk.poll(offset=first[-1] + 1))
    assert len(first) == 8
    assert first + rest == sent


def test_updates_that_come_together_leave_together() -> None:
    """The parked poll is answered 1 ms after the last update, so a burst is one batch."""
    desk = Desk()
    query = desk.poll(timeout=50)
    pushed = desk.push()
    desk.wait(0.0009)
    pushed += desk.push()
    desk.wait(0.0009)
    assert query.answer is None
    desk.wait(0.0002)
    assert ids(query) == pushed


def test_a_steady_stream_is_held_for_two_milliseconds_at_most() -> None:
    """However fast updates follow each other, 2 ms after the first one the poll is answered."""
    desk = Desk()
    query = desk.poll(timeout=50)
    for _ in range(4):
        desk.push()
        desk.wait(0.0006)
    assert len(ids(query)) == 4


@pytest.mark.parametrize(("kind", "seconds"), [("message", 86400), ("callback_query", 150), ("inline_query", 30)])
def test_what_nobody_fetches_expires(kind: str, seconds: int) -> None:
    """A message is kept for 24 h, a callback query for 150 s, an inline query for 30 s."""
    desk = Desk()
    desk.simulator.push(42, kind=kind)
    desk.wait(seconds)
    assert len(ids(desk.poll())) == 1
    desk.wait(4)
    assert ids(desk.poll()) == []
    assert desk.simulator.oracle.updates()[0].gone == "expired"


def test_an_expired_update_between_others_disappears_alone() -> None:
    """The older and the younger update are still served, in order."""
    desk = Desk()
    before = desk.push()
    desk.simulator.push(42, kind="callback_query")
    after = desk.push()
    desk.wait(151)
    assert ids(desk.poll()) == before + after
    assert desk.pending == 2


def test_allowed_updates_belong_to_the_bot_and_to_the_future() -> None:
    """What one call sets filters new updates for everybody until another call sets others; old ones stay."""
    desk = Desk()
    [before] = desk.push()
    desk.poll(allowed_updates='["callback_query"]')
    assert desk.push() == []
    callback = desk.simulator.push(42, kind="callback_query")
    assert ids(desk.poll(client="b", offset=1)) == [before, callback]


@pytest.mark.parametrize("text", ["", "nonsense", '"message"', "[1]", "{}"])
def test_invalid_allowed_updates_change_nothing(text: str) -> None:
    """Missing or malformed, they leave what was set before."""
    desk = Desk()
    desk.poll(allowed_updates='["poll"]')
    desk.poll(allowed_updates=text, offset=1)
    assert desk.push() == []


@pytest.mark.parametrize("text", ["[]", '["no_such_kind"]'])
def test_empty_allowed_updates_mean_the_default(text: str) -> None:
    """The default is everything but chat_member and the two of reactions."""
    desk = Desk()
    desk.poll(allowed_updates='["chat_member"]')
    desk.poll(allowed_updates=text, offset=1)
    assert len(desk.push()) == 1
    assert desk.simulator.push(42, kind="chat_member") is None


def test_sticky_mode_refuses_the_newcomer() -> None:
    """As the folk model has it: while a poll is parked every other one gets the 409, and the parked one stays."""
    desk = Desk(conflict="sticky")
    parked = desk.poll(timeout=10)
    assert refusal(desk.poll(client="b", timeout=10)) == (409, TEXT_OTHER)
    desk.wait(10)
    assert result(parked) == []
    assert desk.poll(client="b", timeout=10).answer is None


def test_a_bots_queue_is_keyed_by_id_and_environment() -> None:
    """A new token of the same bot meets the same queue; the test environment has one of its own."""
    desk = Desk()
    pushed = desk.push()
    assert ids(desk.poll(token="42:another-token-not-real")) == pushed
    assert desk.simulator.push("42/test", text="x") is not None
    assert desk.pending == 1
    assert len(desk.simulator.oracle.updates("42/test")) == 1
