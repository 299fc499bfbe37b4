"""A driver that breaks its contract is told by name, verb and sentence, and makes no second leader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.sessions import TIMING, holder, session

from cluster_lock import clock
from cluster_lock.drivers.checked import CheckedDriver
from cluster_lock.drivers.memory import MemoryBackend, MemoryDriver
from cluster_lock.errors import ContractBroken, LeaseExpired, LockLost
from cluster_lock.values import LEADER, Changes, Entry

pytestmark = pytest.mark.virtual

Spoil = Callable[[Any], Any]


def spoilt(store: MemoryBackend, verb: str, spoil: Spoil) -> MemoryDriver:
    """A driver that keeps its contract, but for the answers of `verb`: `spoil` makes them of the right ones."""

    async def broken(self: MemoryDriver, *given: Any) -> Any:
        return spoil(await getattr(MemoryDriver, verb)(self, *given))

    async def read(self: MemoryDriver, names: Any) -> Changes:
        return await MemoryDriver.wait_changed(self, names, None, 0)

    made: MemoryDriver = type("Broken", (MemoryDriver,), {"read": read, verb: broken})(store)
    return made


def raises(error: Exception) -> Spoil:
    def spoil(answer: Any) -> Any:
        raise error

    return spoil


def entries(change: Callable[[dict[str, Entry]], object]) -> Spoil:
    """An answer of `read` or `wait_changed` after `change` of its entries."""

    def spoil(answer: Changes) -> Changes:
        change(changed := dict(answer.entries))
        return replace(answer, entries=changed)

    return spoil


async def every_verb(driver: CheckedDriver) -> None:
    lease = await driver.grant_lease("holder", 30)
    await driver.announce(lease, "standby/a", b"a")
    await driver.renew(lease)
    grant = await driver.acquire(lease, "leader/x", b"x")
    assert grant is not None
    assert await driver.acquire(await driver.grant_lease("other", 30), "leader/x", b"x") is None
    changes = await driver.read(["leader/x", "leader/y"])
    await driver.wait_changed(["leader/x", "standby/a"], changes.position, 0)
    await driver.wait_changed(["leader/x", "leader/y"], None, 0)
    entry, *_ = await driver.scan("standby/")
    await driver.acquire(lease, "leader/y", b"y")
    await driver.scan("leader/")
    assert await driver.transfer(grant, entry, b"x")
    await driver.release(grant, b"bye")
    await driver.withdraw(lease, "standby/a")
    await driver.revoke(lease)


async def test_one_that_keeps_it_hears_nothing(store: MemoryBackend) -> None:
    """Every verb of a driver that keeps its contract answers as if nobody looked."""
    await every_verb(CheckedDriver(MemoryDriver(store), 4))


STRANGE = Entry("leader/strange", None, 1, None)

BROKEN: list[tuple[str, Spoil, str]] = [
    ("grant_lease", lambda lease: None, "a new lease"),
    ("grant_lease", lambda lease: replace(lease, ttl=float("inf")), "the server's own ttl"),
    ("grant_lease", lambda lease: replace(lease, id=7), "with an id"),
    ("renew", lambda epoch: None, "returns the store's epoch"),
    ("renew", lambda epoch: True, "a whole number"),
    ("acquire", lambda grant: True, "a grant, or None"),
    ("acquire", lambda grant: replace(grant, record=None), "a grant, or None"),
    ("acquire", lambda grant: replace(grant, previous="x"), "as `previous` what the last holder wrote"),
    ("acquire", lambda grant: replace(grant, name="leader/another"), "the lock that was asked for"),
    ("acquire", lambda grant: replace(grant, lease=replace(grant.lease, id="another")), "under the lease that asks"),
    ("acquire", lambda grant: replace(grant, token="7"), "whole numbers above 0"),
    ("acquire", lambda grant: replace(grant, index=0), "that grow from grant to grant"),
    ("transfer", lambda given: None, "True: the heir holds it"),
    ("read", lambda changes: dict(changes.entries), "returns Changes"),
    ("read", lambda changes: replace(changes, epoch=None), "a whole number as epoch"),
    ("read", entries(lambda found: found.pop("leader/y", None)), "every one of the names, absent ones too"),
    ("read", entries(lambda found: found.update({STRANGE.name: STRANGE})), "and no other"),
    ("read", entries(lambda found: found.update({"leader/x": STRANGE})), "each under its own name"),
    ("wait_changed", lambda changes: None, "returns Changes"),
    ("wait_changed", entries(lambda found: found.update({STRANGE.name: STRANGE})), "and no other"),
    ("wait_changed", entries(lambda found: found.pop("leader/y", None)), "every one of the names"),
    ("scan", tuple, "a list of entries"),
    ("scan", lambda found: [*found, STRANGE], "every key under the prefix that a live lease holds"),
    ("scan", lambda found: found[::-1], "oldest index first"),
    ("renew", raises(OSError("reset by peer")), "it raises only BackendUnavailable, BackendRefused, LeaseExpired"),
    ("release", raises(LeaseExpired("gone")), "it raises only BackendUnavailable, BackendRefused"),
    *[
        (verb, raises(KeyError("x")), "it raises only")
        for verb in ("revoke", "announce", "withdraw", "read", "scan", "wait_changed", "transfer", "acquire")
    ],
]


async def test_a_secret_that_cannot_be_written_is_not_told(store: MemoryBackend) -> None:
    """An error about a text that cannot be written has that text in it; what is told of it has not."""
    error = UnicodeEncodeError("utf-8", "SeCrEt\udcff", 6, 7, "surrogates not allowed")
    driver = CheckedDriver(spoilt(store, "grant_lease", raises(error)), 1.0)
    with pytest.raises(ContractBroken, match="raised UnicodeEncodeError\\('surrogates not allowed'\\)") as caught:
        await driver.grant_lease("holder", 30)
    assert "SeCrEt" not in str(caught.value)


async def test_an_open_that_raises(store: MemoryBackend) -> None:
    """Whatever it is, it is told as the other verbs' errors are."""

    class Broken(MemoryDriver):
        async def open(self) -> None:
            raise ValueError("no such place")

    with pytest.raises(ContractBroken, match="open raised ValueError\\('no such place'\\); the contract says: "):
        await CheckedDriver(Broken(store), 4).open()


@pytest.mark.parametrize(("verb", "spoil", "sentence"), BROKEN)
async def test_each_sentence(store: MemoryBackend, verb: str, spoil: Spoil, sentence: str) -> None:
    """What breaks a sentence of the contract is an error that names driver, verb and sentence."""
    with pytest.raises(ContractBroken) as caught:
        await every_verb(CheckedDriver(spoilt(store, verb, spoil), 4))
    assert ".Broken (memory) breaks its contract: " in str(caught.value)
    said, _, promised = str(caught.value).partition("; the contract says: ")
    assert f"contract: {verb} " in said
    assert sentence in promised


@pytest.mark.parametrize(
    ("verb", "spoil"),
    [
        ("renew", lambda epoch: "yes"),
        ("renew", raises(OSError("reset by peer"))),
        ("read", lambda changes: None),
        ("read", entries(lambda found: found.clear())),
        ("wait_changed", entries(lambda found: found.update({STRANGE.name: STRANGE}))),
    ],
)
async def test_the_work_ends_before_anybody_else_leads(store: MemoryBackend, verb: str, spoil: Spoil) -> None:
    """The work under a lock is cancelled when its driver breaks the contract; then another session leads, and this one
    never again."""
    is_broken, ended = asyncio.Event(), False
    a = session(store, "a", driver=spoilt(store, verb, lambda answer: spoil(answer) if is_broken.is_set() else answer))
    async with session(store, "b") as b:
        with pytest.raises(LockLost, match="breaks its contract"):
            async with a, a.lock("x").hold():
                is_broken.set()
                store.stranger_writes("cluster-lock/step-down/x", b"")  # a watch has something to tell
                try:
                    await asyncio.sleep(1000)
                finally:
                    assert holder(store, "x") == "a"
                    assert clock.now() < a.context.lease.deadline
                    ended = True
        with pytest.raises(ContractBroken):
            await a.lease()
        async with b.lock("x").hold():
            assert ended


async def test_nobody_leads_on_a_grant_of_another_lock(store: MemoryBackend) -> None:
    """A grant of a lock that was not asked for is no grant: the wait ends with the reason, and nothing is kept."""
    driver = spoilt(store, "acquire", lambda grant: grant and replace(grant, name=LEADER + "another"))
    async with session(store, "a", driver=driver) as a, session(store, "b") as b:
        with pytest.raises(ContractBroken, match="takes the lock that was asked for"):
            async with a.lock("x").hold():
                pytest.fail("nobody works under a lock that was not granted")
        async with asyncio.timeout(TIMING.renew_every * 2), b.lock("x").hold():
            assert holder(store, "x") == "b"


class Deaf(MemoryDriver):
    """A client whose renewals hang, and hear of no cancellation."""

    hangs = False

    async def renew(self, lease: Any) -> int:
        let_go = asyncio.ensure_future(asyncio.sleep(100))
        hangs, self.hangs = self.hangs, False
        while hangs and not let_go.done():
            try:
                await asyncio.shield(let_go)
            except asyncio.CancelledError:
                continue
        return await super().renew(lease)


async def test_a_verb_that_hangs(store: MemoryBackend, caplog: pytest.LogCaptureFixture) -> None:
    """The work ends before the deadline although a renewal never comes back and cannot be cancelled, and the log says
    which sentence that breaks."""
    driver = Deaf(store)
    async with session(store, "a", driver=driver) as a:
        with pytest.raises(LockLost):
            async with a.lock("x").hold():
                deadline, driver.hangs = a.context.lease.deadline, True
                await asyncio.sleep(1000)
        assert clock.now() < deadline
        async with session(store, "b") as b, b.lock("x").hold():
            assert clock.now() >= deadline
    (said,) = {each.getMessage() for each in caplog.records if each.levelno == logging.ERROR}
    assert "contract: renew has not come back" in said
    assert "safe to cancel at any await" in said
