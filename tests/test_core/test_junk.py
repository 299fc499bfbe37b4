"""What a stranger, or a liar, writes under our keys stops nobody and breaks nothing."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.aio import until
from support.sessions import PREFIX, TIMING, session, until_steps_down

from cluster_lock.admin.overview import look
from cluster_lock.admin.step_down import ask_to_step_down
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.election import Election
from cluster_lock.errors import ConfigError
from cluster_lock.health import Board
from cluster_lock.health.document import document
from cluster_lock.health.peers import SessionPeers
from cluster_lock.session.identity import LONGEST_INSTANCE
from cluster_lock.values import HIGHEST_FLOOR, INVITE, LEADER, REPLY, REQUEST, STANDBY, Record

pytestmark = pytest.mark.virtual

RECORD = json.loads(
    Record(holder="e@h/1-x", instance="evil", host="h", pid=1, since="", version="0", names=("x",)).to_bytes()
)
JUNK = [
    b"",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"token": "1", "number": 5, "by": null, "to": 7, "declined": []}',
    json.dumps({"token": 5, "number": "\ud800", "by": "\ud800", "to": "\ud800", "declined": "\ud800"}).encode(),
    *(
        json.dumps(RECORD | wrong).encode()
        for wrong in (
            {"seen": 2**62, "format": 1},
            {"tokens": {"x": 2**62}},
            {"instance": "\ud800"},
            {"instance": "://:" * 16_000},
            {"names": {"x": 1}},
            {"pid": "1"},
            {"handover": {"x": "\ud800"}},
            {"since": 5},
            {"answer": {"x": 5}},
        )
    ),
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:60]))
async def test_junk_under_any_key_stops_nobody(junk: bytes, store: MemoryBackend) -> None:
    """With junk under every kind of key, under a lease of its own, one leads, hands over on request, and the next one
    leads; what is shown can be sent as JSON in UTF-8."""
    evil = MemoryDriver(store)
    lease = await evil.grant_lease("evil", 1000)
    for key in (STANDBY + "evil", INVITE + "x", REPLY + "x", REQUEST + "x", LEADER + "y"):
        if key.startswith(LEADER):
            assert await evil.acquire(lease, key, junk)
        else:
            await evil.announce(lease, key, junk)
    board = Board("a")
    async with session(store, "a", observer=board) as a, session(store, "b") as b, session(store, "ops") as ops:
        board.peers = SessionPeers(a)
        elections = [Election(a), Election(b)]
        tasks = [asyncio.ensure_future(elections[0].lead("x", until_steps_down))]
        blocked = asyncio.ensure_future(Election(a).lead("y", until_steps_down))
        await until(lambda: elections[0].term("x") is not None)
        tasks.append(asyncio.ensure_future(elections[1].lead("x", until_steps_down)))
        await until(lambda: "x" in b.context.contender)
        await asyncio.sleep(TIMING.renew_every + 1)
        board.look_around()
        board.peers.standbys("x")
        await asyncio.sleep(1)
        json.dumps(document(board), ensure_ascii=False).encode()
        repr(await look(evil, request=1.0)).encode()
        outcome = await ask_to_step_down(ops, "x", by="test", timeout=20)
        assert outcome is not None
        assert outcome.declined is None
        await until(lambda: elections[1].term("x") is not None)
        for election, task in zip(elections, tasks, strict=True):
            election.stop()
            await task
        blocked.cancel()
        await asyncio.wait([blocked])


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:60]))
async def test_junk_as_the_last_word_stops_nobody(junk: bytes, store: MemoryBackend) -> None:
    """A last word that is none of ours is no word at all: the lock is found free and led."""
    evil = MemoryDriver(store)
    lease = await evil.grant_lease("evil", 1000)
    grant = await evil.acquire(lease, LEADER + "x", b"{}")
    assert grant is not None
    await evil.release(grant, junk)
    async with session(store, "a") as a, a.lock("x").hold() as hold:
        assert hold.is_valid()
    assert store.entry(f"{PREFIX}{LEADER}x", "x").lease is None


def test_a_text_that_nobody_could_be_shown_makes_no_record() -> None:
    """A record with a text of 64 KiB is none of ours; the longest name that an instance may have makes one, and what it
    leaves for the next leader may be as long as the store takes."""
    for name in ("holder", "instance", "host", "since", "version", "health", "config", "handed_over_by"):
        assert Record.from_bytes(json.dumps(RECORD | {name: "://:" * 16_000}).encode()) is None, name
    longest = session(MemoryBackend(), "i" * LONGEST_INSTANCE).context.identity.record(
        "x", handover={"x": "y" * 100_000}
    )
    assert Record.from_bytes(longest.to_bytes()) == longest
    with pytest.raises(ConfigError, match="at most 500 characters"):
        session(MemoryBackend(), "i" * (LONGEST_INSTANCE + 1))
    for floor in (-1, HIGHEST_FLOOR + 1):
        with pytest.raises(ConfigError, match="fencing_floor must be between 0 and 5000000000000000"):
            session(MemoryBackend(), "i", fencing_floor=floor)
