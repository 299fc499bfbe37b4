"""How update ids are given, run out and begin anew, and what the queue refuses."""

from __future__ import annotations

import random

import pytest
from support.botapi import Desk, ids

from cluster_lock.testing.telegram import update_queue
from cluster_lock.testing.telegram.update_queue import FIRST_ID, MAX_ID, UpdateQueue


def test_the_first_id_is_random_in_telegrams_range_and_the_rest_follow() -> None:
    """Ids begin between 2,000,001 and 1e9 and grow by one, also after the queue was emptied."""
    firsts = {UpdateQueue(random.Random(seed)).push('"poll":{}', 1.0) for seed in range(50)}
    assert len(firsts) == 50
    assert all(FIRST_ID <= first <= MAX_ID // 2 for first in firsts)
    desk = Desk()
    first = desk.push(2)
    desk.poll(offset=first[-1] + 1)
    assert desk.push(2) == [first[-1] + 1, first[-1] + 2]


def test_ids_wrap_at_two_billion_and_what_is_queued_is_forgotten() -> None:
    """The last valid id is 1,999,999,998; the next update gets a random one and the queue starts empty."""
    desk = Desk()
    desk.simulator.reseed(42, MAX_ID - 3)
    last = desk.push(2)
    assert last == [MAX_ID - 3, MAX_ID - 2]
    [renumbered] = desk.push()
    assert renumbered <= MAX_ID // 2
    assert ids(desk.poll(offset=MAX_ID - 1)) == [renumbered]
    assert [update.gone for update in desk.simulator.oracle.updates()] == ["renumbered", "renumbered", None]


def test_reseed_waits_until_the_queue_is_empty() -> None:
    """As after an idle week: what is queued keeps its numbers, and the new ones begin once all is acknowledged."""
    desk = Desk()
    first = desk.push()
    desk.simulator.reseed(42, "lower")
    second = desk.push()
    assert second[0] == first[0] + 1
    desk.poll(offset=second[0] + 1)
    [lower] = desk.push()
    assert lower < first[0] - 100_000
    assert ids(desk.poll(offset=second[0] + 2)) == [lower]


def test_reseed_higher_and_at_once() -> None:
    """`now` forgets what is queued; "higher" numbers are out of reach of the old offset, which serves from the head."""
    desk = Desk()
    first = desk.push(3)
    desk.simulator.reseed(42, "higher", now=True)
    [higher] = desk.push()
    assert higher > first[-1] + 100_000
    assert ids(desk.poll(offset=first[-1] + 1)) == [higher]
    report = desk.simulator.oracle.report()
    assert (report.renumbered, report.lost, report.pending) == (3, 1, 1)


def test_a_parked_poll_gets_updates_of_a_new_numbering() -> None:
    """It waits with an old offset that is far beyond the new end, and is served from the head."""
    desk = Desk()
    [first] = desk.push()
    parked = desk.poll(offset=first + 1, timeout=50)
    desk.simulator.reseed(42, "lower")
    [lower] = desk.push()
    desk.wait(0.01)
    assert ids(parked) == [lower]


def test_a_full_queue_drops_new_updates() -> None:
    """100,000 updates are the most; one acknowledged makes room for one."""
    desk = Desk()
    queue = desk.simulator.bot(42).queue
    for _ in range(100_000):
        queue.push('"poll":{}', 1e12)
    assert desk.push() == []
    desk.poll(offset=queue.head + 1, limit=1)
    assert len(desk.push(2)) == 1


def test_an_update_above_half_a_mebibyte_is_dropped() -> None:
    """512 KiB is the most for one update."""
    desk = Desk()
    assert desk.simulator.push(42, text="x" * 512 * 1024) is None
    assert desk.simulator.push(42, text="x" * 511 * 1024) is not None


def test_the_whole_queue_has_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB (here 4 KiB) are the most for all updates of a bot."""
    monkeypatch.setattr(update_queue, "MAX_TOTAL_BYTES", 4096)
    desk = Desk()
    pushed = [desk.simulator.push(42, text="x" * 1000) for _ in range(5)]
    assert pushed[2] is not None
    assert pushed[-1] is None
    desk.poll(offset=pushed[2])
    assert desk.simulator.push(42, text="x" * 1000) is not None
