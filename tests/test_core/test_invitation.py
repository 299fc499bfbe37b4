"""Invitations: what one says, and whose are answered."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.aio import until
from support.members import stands
from support.sessions import PREFIX, TIMING, session, standby

from cluster_lock.aio import end
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.session.invitation import answer_invitations
from cluster_lock.values import INVITE, Grant, Lease, Record

pytestmark = pytest.mark.virtual


async def test_an_invitation_says_who_invites_to_what(store: MemoryBackend) -> None:
    """Who looks at an invitation sees who leads, and the fencing token of that term, which has the floor in it."""
    async with session(store, "a", fencing_floor=7) as a, session(store, "b", fencing_floor=7) as b:
        hold = await a.lock("x").acquire()
        waiting = asyncio.ensure_future(b.lock("x").acquire())
        await until(lambda: standby(store, "b").lease is not None)
        inviting = asyncio.ensure_future(hold.find_heir(None))
        await until(lambda: stands(store, INVITE + "x").record is not None)
        said = json.loads(stands(store, INVITE + "x").record or b"")
        assert hold.grant.token & 7, "so that they are added, bit for bit"
        assert said["to"] == standby(store, "b").lease
        assert (said["by"], said["token"]) == ("a", hold.fencing_token)
        assert await inviting is None
        await hold.end({})
        await (await waiting).end({})


class KeptBack(MemoryDriver):
    """A client whose backend gives no lock away, as Consul does after a lease has ended."""

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        return None


async def test_nobody_is_invited_to_a_lock_that_nobody_holds(store: MemoryBackend) -> None:
    """An invitation that a person wrote is not answered while the lock is free, and its contender stands by on."""
    async with session(store, "b", driver=KeptBack(store)) as b:
        waiting = asyncio.ensure_future(b.lock("x").acquire())
        answering = asyncio.ensure_future(answer_invitations(b.context, "x", None))
        await until(lambda: standby(store, "b").lease is not None)
        invitation = {"to": standby(store, "b").lease, "number": "1"}
        store.stranger_writes(PREFIX + INVITE + "x", json.dumps(invitation).encode())
        await asyncio.sleep(TIMING.invite)
        record = Record.from_bytes(standby(store, "b").record or b"")
        assert record is not None
        assert record.names == ("x",)
        assert record.answer == {}
        assert not answering.done()
        await end([answering, waiting])
