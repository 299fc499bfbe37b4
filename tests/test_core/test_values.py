"""The values refuse what cannot be right, and bytes of strangers never break them."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.values import GUARD_BEFORE, Changes, Entry, Grant, Lease, Record, Timing, Traits, contender_key

RECORD = Record(
    holder="web-1",
    instance="web-1",
    host="web-1.example.org",
    pid=4711,
    since="2024-05-01T12:00:00.000Z",
    version="1.0",
)


def test_default_timing_is_the_documented_one() -> None:
    """The defaults fit each other and give the documented renewal period and request time."""
    timing = Timing()
    assert (timing.ttl, timing.margin, timing.stop_time, timing.settle, timing.drain) == (15, 3, 1, 0.25, 7)
    assert (timing.renew_every, timing.request) == (5, 4)
    assert timing.stop_time > GUARD_BEFORE


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, field.name) for kind in (Timing, TelegramTimes) for field in fields(kind)]
)
def test_no_duration_is_negative_and_only_settle_may_be_nothing(
    kind: type[Timing] | type[TelegramTimes], name: str
) -> None:
    """Each duration below its floor is refused by its name and value."""
    with pytest.raises(ValueError, match=rf"\b{name}\b.*-1"):
        kind(**{name: -1.0})
    if name == "settle":
        assert Timing(settle=0).settle == 0
    else:
        with pytest.raises(ValueError, match=rf"\b{name}\b.*0"):
            kind(**{name: 0.0})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"margin": 15.0}, r"margin \(15 s\) must be less than ttl \(15 s\)"),
        ({"ttl": 2.0}, r"margin \(3 s\) must be less than ttl \(2 s\)"),
        ({"stop_time": 3.0, "margin": 8.0}, "a third of ttl - margin"),
        ({"ttl": 5.9}, "one renewal that is not answered would end every term"),
        ({"stop_time": 3.5}, r"stop_time \(3\.5 s\) must not exceed margin \(3 s\)"),
        ({"stop_time": 0.1}, r"stop_time \(0\.1 s\) must be more than 0\.2 s"),
    ],
)
def test_durations_that_do_not_fit_are_refused_with_the_reason(wrong: dict[str, float], why: str) -> None:
    """A set of durations in the wrong order is refused, both values and the reason in the text."""
    with pytest.raises(ValueError, match=why):
        Timing(**wrong)


@pytest.mark.parametrize("ttl", [6.0, 6.5, 10.0, 15.0, 60.0])
def test_every_term_outlasts_a_renewal_that_is_not_answered(ttl: float) -> None:
    """Whatever is accepted leaves the time for a renewal whose answer never comes and for another one, and the default
    renews three times per ttl."""
    timing = Timing(ttl=ttl)
    assert timing.renew_every + timing.request <= ttl - timing.margin - timing.stop_time
    assert Timing().renew_every == Timing().ttl / 3


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Two mistakes are one error with both in it."""
    with pytest.raises(ValueError, match=r"drain.*; .*settle"):
        Timing(drain=-1, settle=-1)
    with pytest.raises(ValueError, match=r"telegram_grace must be more than 0.*; poll_timeout.* at most 50 s"):
        TelegramTimes(telegram_grace=0, poll_timeout=51)


def test_timing_follows_what_the_server_granted() -> None:
    """With another ttl than was asked for everything is counted anew; one that leaves nothing is refused."""
    timing = Timing(ttl=15)
    assert timing.promised(15) is timing
    assert timing.promised(30).renew_every == 10
    with pytest.raises(ValueError, match="margin"):
        timing.promised(2)


def test_record_comes_back_from_its_bytes() -> None:
    """What is written is read, with every field filled and with only the required ones."""
    full = replace(
        RECORD,
        health="http://127.0.0.1:9876",
        config="ab12",
        seen=2**53,
        tokens={"telegram/1": 2**53},
        gap=0.5,
        names=("telegram/1", "telegram/ü"),
        released=True,
        handed_over_by="web-2",
        handover={"offset": 7, "done": [9, 11]},
        answer={"reaches": True},
    )
    for record in (RECORD, full):
        assert Record.from_bytes(record.to_bytes()) == record


def test_record_is_one_line_for_people() -> None:
    """The bytes are one line of JSON in plain letters, without what is not filled."""
    raw = replace(RECORD, names=("telegram/ü",)).to_bytes()
    assert b"\n" not in raw
    assert "telegram/ü".encode() in raw
    assert set(json.loads(raw)) == {"holder", "instance", "host", "pid", "since", "version", "format", "names"}


def test_record_of_a_newer_version_is_read() -> None:
    """Keys that this version does not know are dropped, the rest is read."""
    raw = json.dumps(json.loads(RECORD.to_bytes()) | {"mood": "good"}).encode()
    assert Record.from_bytes(raw) == RECORD


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not ours",
        b"\xff\xfe\x00",
        b"null",
        b"42",
        b'"text"',
        b"[1, 2]",
        b"{}",
        b'{"holder": "web-1"}',
        b"[" * 200_000,
        *(
            json.dumps(json.loads(RECORD.to_bytes()) | wrong).encode()
            for wrong in (
                *({name: 1} for name in ("holder", "instance", "host", "since", "version", "health", "config")),
                *({name: "\ud800"} for name in ("holder", "instance", "host", "since", "version", "health")),
                *({"pid": value} for value in ("1", 1.5, None, True, -1, 2**53 + 1)),
                *({name: value} for name in ("seen", "format") for value in ("many", True, -1, 2**53 + 1)),
                *({"names": value} for value in (5, "x", [1], ["\ud800"], {"x": 1})),
                *({"tokens": value} for value in ([1], {"x": -1}, {"x": 2**53 + 1}, {"x": "1"}, {"\ud800": 1})),
                *({name: value} for name in ("handover", "answer") for value in ([1], "yes", None, {"x": "\ud800"})),
                *({"gap": value} for value in ("1", True, float("inf"), float("nan"), 10**400)),
                {"released": 1},
                {"handed_over_by": 1},
            )
        ),
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_strangers_bytes_are_no_record(raw: bytes) -> None:
    """Whatever else stands under a key is told from a record, without an exception."""
    assert Record.from_bytes(raw) is None


def test_a_record_of_the_first_format_is_read() -> None:
    """What version 0.1 wrote has one token for all locks, and says of each lock that one."""
    raw = b'{"holder": "a@h/1-x", "instance": "a", "host": "h", "pid": 1, "since": "", "version": "0.1.0", "seen": 7}'
    record = Record.from_bytes(raw)
    assert record is not None
    assert (record.known("x"), contender_key(record)) == (7, "standby/a")
    assert (RECORD.known("x"), replace(RECORD, seen=7, tokens={"x": 7}).known("y")) == (0, 0)


@pytest.mark.parametrize(
    "value",
    [
        Traits(),
        Lease("1", 15.0, "web-1"),
        Entry("leader/x", None, 1, None),
        Grant("leader/x", Lease("1", 15.0, "web-1"), 1, 1, b""),
        Changes(1, {}),
        Timing(),
        RECORD,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen(value: object) -> None:
    """No value can be changed after it was made, nor be given a field that does not exist."""
    for name in (fields(value)[0].name, "no_such_field"):  # type: ignore[arg-type]
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(value, name, 1)
