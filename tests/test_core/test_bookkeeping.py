"""What a session remembers: of what it touched, of tokens, of requests, of what it asked for. And what it forgets."""

from __future__ import annotations

import pytest

from cluster_lock import clock
from cluster_lock.drivers.memory import MemoryDriver
from cluster_lock.errors import ConfigError
from cluster_lock.session import tokens, touched
from cluster_lock.session.identity import Identity
from cluster_lock.session.request_pace import AT_ONCE, EVERY, RequestPace
from cluster_lock.session.requests import Ask, Reply
from cluster_lock.session.tokens import Tokens
from cluster_lock.session.touched import MANY, Touched
from cluster_lock.session.watch import Watch
from cluster_lock.values import Entry, Grant, Lease, Timing

TIMING = Timing(ttl=15.0, margin=3.0, stop_time=1.0)


class Moment:
    """A clock that a test moves by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock, "now", lambda: self.now)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    return Moment(monkeypatch)


def a_watch() -> Watch:
    return Watch(MemoryDriver(), 15.0, heard=lambda entry, asked: None, went_back=lambda why: None)


def test_as_many_names_are_kept_as_are_said(moment: Moment) -> None:
    """Of 128 locks that were touched under one lease the names are known; of more, none is."""
    assert MANY == touched.MANY == 128
    bench = Touched(a_watch(), TIMING)
    for number in range(MANY):
        bench.touch(f"leader/{number}")
    assert bench.ever is not None
    assert len(bench.ever) == MANY
    for number in range(3):
        bench.touch(f"leader/more{number}")
    assert bench.ever is None


def test_what_was_touched_is_followed_as_long_as_a_request_may_come(moment: Moment) -> None:
    """A key that was touched is followed for two ttl, a drain and a cancel grace, and what is in use for longer."""
    watch = a_watch()
    bench = Touched(watch, TIMING)
    for key in ("idle", "used"):
        bench.doubt(key)
    bench.note_read(["idle", "used"])
    moment.now += 2 * TIMING.ttl + TIMING.drain + TIMING.cancel_grace - 0.1
    bench.forget_old({"used"})
    assert bench.unsure == watch.wanted.keys() == {"idle", "used"}
    moment.now += 0.2
    bench.forget_old({"used"})
    assert bench.unsure == set()
    assert watch.wanted.keys() == {"used"}
    assert (bench.has_touched("used"), bench.has_touched("idle")) == (True, False)


def test_a_lock_is_stuck_after_a_ttl(moment: Moment) -> None:
    """A release that is not confirmed for a whole ttl is told, and not before; one that is confirmed is not."""
    bench = Touched(a_watch(), TIMING)
    grants = [Grant(f"leader/{name}", Lease("lease", 15.0, "a"), 4, 4, b"") for name in "xy"]
    for grant in grants:
        bench.note_unreleased(grant, b"")
    bench.note_elsewhere("leader/y")
    moment.now += TIMING.ttl - 0.1
    bench.note_unreleased(grants[0], b"")
    assert bench.stuck() is None
    moment.now += 0.2
    assert bench.stuck() == "leader/x could not be released within a ttl"


def test_what_nobody_could_look_at_is_not_forgotten(moment: Moment) -> None:
    """What may have become ours and was not looked at for a whole ttl is told, and followed however old it is; one look
    is enough."""
    bench = Touched(a_watch(), TIMING)
    bench.doubt("leader/x")
    moment.now += TIMING.ttl - 0.1
    bench.doubt("leader/x")
    assert bench.stuck() is None
    moment.now += 0.2
    assert bench.stuck() == "leader/x could not be looked at within a ttl"
    moment.now += 100 * TIMING.ttl
    bench.forget_old(set())
    assert bench.has_touched("leader/x")
    bench.note_read(["leader/x"])
    assert bench.stuck() is None
    bench.forget_old(set())
    assert not bench.has_touched("leader/x")


def test_a_last_word_is_that_of_its_own_grant() -> None:
    """What a release was to leave is known until it is confirmed, or the indexes say nothing any more."""
    bench = Touched(a_watch(), TIMING)
    first, second = [Grant("leader/x", Lease("lease", 15.0, "a"), index, index, b"") for index in (4, 5)]
    bench.note_unreleased(first, b"farewell")
    assert (bench.farewell(first), bench.farewell(second)) == (b"farewell", None)
    bench.note_given(first)
    assert bench.farewell(first) is None
    bench.note_unreleased(second, b"another")
    bench.forget_indexes()
    assert bench.farewell(second) is None


def test_an_index_says_which_grant_is_over() -> None:
    """Only the very grant that is over is over, and only what is not newer than what was given away is old news."""
    bench = Touched(a_watch(), TIMING)
    lease = Lease("lease", 15.0, "a")
    grants = [Grant("leader/x", lease, index, index, b"") for index in (4, 5, 6)]
    bench.end(grants[1])
    assert [bench.is_over(grant) for grant in grants] == [False, True, False]
    bench.note_given(grants[1])
    assert [bench.is_old(Entry("leader/x", "lease", index, b"")) for index in (4, 5, 6)] == [True, True, False]
    bench.forget_indexes()
    assert not any(bench.is_over(grant) for grant in grants)


def test_what_stands_again_after_it_was_given_away() -> None:
    """Only a read that was sent after the giving shows that the store was set back, and only of a key that we gave; a
    stranger may write any index."""
    watch = a_watch()
    bench = Touched(watch, TIMING)
    before = watch.moment
    bench.note_given(Grant("leader/x", Lease("lease", 15.0, "a"), 5, 5, b""))
    back = Entry("leader/x", "lease", 5, b"")
    assert [bench.is_back(back, asked) for asked in (-1, before, watch.moment)] == [False, False, True]
    assert not bench.is_back(Entry("leader/x", "lease", 6, b""), watch.moment)
    assert not bench.is_back(Entry("leader/y", "lease", 0, b""), watch.moment)


def test_the_largest_token_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is smaller than one that was heard of changes nothing; of ever new locks those are forgotten that
    were touched longest ago."""
    assert tokens.REMEMBERED == 20_000
    monkeypatch.setattr(tokens, "REMEMBERED", 3)
    known = Tokens(floor=0)
    assert (known.largest("a"), known.of("a")) == (None, 0)
    known.note("a", 0)
    assert known.largest("a") == 0
    for name, token in (("a", 7), ("b", 2), ("c", 3), ("a", 5), ("d", 4)):
        known.note(name, token)
    assert [known.largest(name) for name in "abcd"] == [7, None, 3, 4]
    assert Tokens(floor=9).of("a") == 9


def test_how_long_a_request_has_to_wait(moment: Moment) -> None:
    """Who was heeded waits for the rest of five seconds; where three were heeded lately, everybody else waits for the
    first of these to be that long ago."""
    pace = RequestPace()
    for number in range(AT_ONCE):
        assert pace.wait("x", "another") == 0
        pace.heeded("x", str(number))
        moment.now += 1
    assert [pace.wait("x", str(number)) for number in range(AT_ONCE)] == [EVERY - 3, EVERY - 2, EVERY - 1]
    assert pace.wait("x", "another") == EVERY - 3
    pace.heeded("x", "0")
    assert pace.wait("x", "another") == EVERY - 2


def test_of_many_who_ask_those_are_known_who_were_last(moment: Moment) -> None:
    """Of 16 who were heeded lately each waits for the rest of its own time; a 17th has the first one forgotten."""
    pace = RequestPace()
    for number in range(16):
        pace.heeded("x", str(number))
        moment.now += 0.1
    assert pace.wait("x", "0") < pace.wait("x", "1") < pace.wait("x", "another")
    pace.heeded("x", "16")
    assert pace.wait("x", "1") < pace.wait("x", "0") == pace.wait("x", "another")


def test_who_a_process_may_be() -> None:
    """A name has at most 500 characters, and a floor is between 0 and 5 * 10**15, both included."""

    def identity(instance: str | None = None, floor: int = 0) -> Identity:
        return Identity(instance, health=None, config=None, fencing_floor=floor)

    assert identity("a" * 500).instance == "a" * 500
    assert identity().instance == identity().host
    assert identity(floor=5 * 10**15).tokens.of("x") == 5 * 10**15
    for wrong in ({"instance": "a" * 501}, {"floor": -1}, {"floor": 5 * 10**15 + 1}):
        with pytest.raises(ConfigError):
            identity(**wrong)


@pytest.mark.parametrize("wrong", [{"token": "5"}, {"number": 1}, {"by": None}, {"to": 3}])
def test_what_is_half_a_request_is_none(wrong: dict[str, object]) -> None:
    """A request or an answer is one only if each part of it is of its kind, and a lease stands behind it."""
    right: dict[str, object] = {"token": 5, "number": "1", "by": "me", "to": None}
    for content, is_one in ((right, True), ({**right, "to": "b"}, True), ({**right, **wrong}, False)):
        ask = Ask(**content)  # type: ignore[arg-type]
        assert (Ask.of(Entry("request/x", "lease", 1, ask.to_bytes())) == ask) is is_one
        assert Ask.of(Entry("request/x", None, 1, ask.to_bytes())) is None
    empty = Entry("request/x", "lease", 1, None)
    assert [Ask.of(None), Reply.of(None), Ask.of(empty), Reply.of(empty)] == [None] * 4
    answer = Reply("1", "why")
    assert Reply.of(Entry("reply/x", "lease", 1, answer.to_bytes())) == answer
    for half in (Reply("1", 2), Reply(1, "why")):  # type: ignore[arg-type]
        assert Reply.of(Entry("reply/x", "lease", 1, half.to_bytes())) is None
