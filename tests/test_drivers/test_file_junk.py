"""Junk in the folder of the file backend: whatever stands in the place of a file of ours costs that one key at most."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.file.counter import Counter
from cluster_lock.drivers.file.keyfile import KeyFile
from cluster_lock.election import Election, Term
from cluster_lock.errors import BackendRefused, ForeignValue
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Hold, Session
from cluster_lock.values import Timing

LOCK, OTHER, RECORD = "leader/x", "leader/other", b'{"holder": "me"}'


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def link(path: Path) -> None:
    path.unlink(missing_ok=True)
    precious = path.parent.parent / "precious"
    precious.write_text("keep")
    path.symlink_to(precious)


def unix_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def writing(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(0o600)

    return write


def head(**change: Any) -> Callable[[Path], None]:
    """The file as it was, with other values in its first line."""

    def write(path: Path) -> None:
        first, _, rest = path.read_bytes().partition(b"\n")
        text = json.dumps({**json.loads(first), **change}, ensure_ascii=False)
        path.write_bytes(text.encode(errors="surrogatepass") + b"\n" + rest)

    return write


def twice(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"lease":', b'"lease": "", "lease":', 1))


def huge(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 10**12)


PLACES = {"folder": folder, "fifo": fifo, "link": link, "socket": unix_socket, "huge": huge}
BYTES = {
    "one byte": b"x",
    "binary": bytes(range(256)) * 20,
    "deep brackets": b"[" * 200_000 + b"\n",
    "deep in a head": b'{"key": ' + b"[" * 60_000 + b"\n",
    "a number of 5000 digits": b'{"key": "a", "index": ' + b"9" * 5000 + b"}\n",
    "NaN": b'{"key": NaN, "lease": NaN, "index": NaN, "announced": NaN, "record": NaN, "previous": NaN}\n\n\n',
    "a long first line": b'{"key": "' + b"a" * 200_000 + b'"}\n',
    "utf-16": '{"key": "a"}\n'.encode("utf-16"),
}
VALUES: list[Any] = [
    None, True, 5, -1, 1.5, 2**53 + 1, 10**30, 10**4000, "", "7", "..", "../counter", "\0", "\ud800", "A" * 16, [],
    ["x"],    {}, float("nan"), float("inf"), 1e308,
]  # fmt: skip
FIELDS = ("key", "lease", "index", "announced", "record", "previous")
WRITES = {
    **PLACES,
    **{name: writing(content) for name, content in BYTES.items()},
    **{f"{field}={ascii(value)[:16]}": head(**{field: value}) for field in FIELDS for value in VALUES},
    "index far above the counter": head(index=2**53 - 1),
    "duplicated key": twice,
}
HARMLESS = {"lease=None", "previous=None", "index=5", "announced=True"}
"""What the file of a lock may say too."""
if os.geteuid() == 0:  # the file of a user that is not us
    WRITES["another user's"] = lambda path: os.chown(path, 12345, -1)


@pytest.fixture(scope="module")
def crowd() -> list[str]:
    return [name for name in WRITES if name not in HARMLESS]


def key_path(directory: Path, name: str = "leader+x") -> Path:
    return directory / "keys" / f"cluster-lock+{name}.json"


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@pytest.mark.slow
async def test_junk_in_one_key_is_foreign_for_that_key_alone(tmp_path: Path, crowd: list[str]) -> None:
    """Whatever stands in the place of a lock's key, no look at it raises, nobody holds it, who wants it is told where
    it is, it is left as it is, and the other lock is held, released and given again on a token that grew by little."""
    driver = FileDriver(tmp_path)
    await driver.open()
    lease = await driver.grant_lease("me", 10)
    position = (await driver.read([LOCK])).position
    for what in crowd:
        path = key_path(tmp_path)
        grant, other = await driver.acquire(lease, LOCK, RECORD), await driver.acquire(lease, OTHER, RECORD)
        assert grant is not None, what
        assert other is not None, what
        WRITES[what](path)
        inode = path.lstat().st_ino
        entries = (await driver.read([LOCK, OTHER])).entries
        assert (entries[LOCK].lease, entries[OTHER].lease) == (None, lease.id), what
        assert entries[LOCK].index >= grant.index, what
        assert [entry.name for entry in await driver.scan("leader/")] == [OTHER], what
        assert LOCK in [entry.name for entry in await driver.inspect("leader/")], what
        changes = await driver.wait_changed([LOCK], position, 0)
        assert changes.entries[LOCK].lease is None, what
        await driver.grant_lease("somebody", 10)  # which sweeps
        await driver.release(grant, RECORD)
        with pytest.raises(ForeignValue, match=r"cluster-lock\+leader\+x\.json.*key cluster-lock/leader/x"):
            await driver.acquire(lease, LOCK, RECORD)
        assert path.lstat().st_ino == inode, what
        await driver.release(other, RECORD)
        again = await driver.acquire(lease, OTHER, RECORD)
        assert again is not None, what
        assert other.token < again.token < other.token + 10, what
        await driver.release(again, RECORD)
        clear(path)
    await driver.close()


async def test_a_session_goes_on_beside_keys_of_junk(tmp_path: Path) -> None:
    """Junk over the key of a lock ends the term under it, and not the session, nor its other lock, nor a standby; when
    the key is cleared the lock is led again."""
    junk = (
        "deep brackets",
        "lease=5",
        "lease='..'",
        "index='7'",
        "key=['x']",
        "index=1000000000000000",
        "folder",
        "fifo",
    )
    timing = Timing(ttl=12, margin=3, stop_time=0.5)
    led = {what: asyncio.Event() for what in junk}

    def body(what: str) -> Callable[[Term], Awaitable[None]]:
        async def leads(term: Term) -> None:
            led[what].set()
            await term.wait_step_down()

        return leads

    def session(name: str) -> Session:
        return Session(FileDriver(tmp_path), instance=name, timing=timing, guard=NoGuard())

    def lead(session: Session) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(Election(session).lead(f"x{number}", body(what))) for number, what in enumerate(junk)
        ]

    async def all_led() -> None:
        for event in led.values():
            await event.wait()

    async with session("b") as ours, session("c") as standby:
        electing = lead(ours)
        await all_led()
        electing += lead(standby)
        async with ours.lock("other").hold() as other:
            holds = [ours.context.claims.holds[f"leader/x{number}"] for number in range(len(junk))]
            for number, what in enumerate(junk):
                led[what].clear()
                WRITES[what](key_path(tmp_path, f"leader+x{number}"))
            for hold in holds:
                assert isinstance(hold, Hold)
                await hold.wait_lost()
            await asyncio.wait(electing, timeout=timing.renew_every * 2)
            assert (ours.failure, standby.failure) == (None, None)
            assert other.loss is None
            assert not [task for task in electing if task.done()]
            for number in range(len(junk)):
                clear(key_path(tmp_path, f"leader+x{number}"))
            await all_led()
        for task in electing:
            task.cancel()
        await asyncio.gather(*electing, return_exceptions=True)


async def test_a_junk_index_becomes_no_token(tmp_path: Path) -> None:
    """Neither an index that no counter reaches, nor one far above the counter as it stands, is counted on from: not in
    the key of the lock, nor in another one, nor when the driver is a new one."""
    for index in (10**30, 2**53 - 1, 10**6):
        first, second = FileDriver(tmp_path), FileDriver(tmp_path)
        await first.open()
        grant = await first.acquire(await first.grant_lease("me", 10), LOCK, RECORD)
        assert grant is not None
        head(index=index)(key_path(tmp_path))
        await second.open()
        lease = await second.grant_lease("you", 10)
        await second.announce(lease, "standby/you", RECORD)
        with pytest.raises(ForeignValue):
            await second.acquire(lease, LOCK, RECORD)
        other = await second.acquire(lease, OTHER, RECORD)
        assert other is not None
        assert grant.token < other.token < 100
        await second.release(other, RECORD)
        await first.close()
        await second.close()
        clear(key_path(tmp_path))


@pytest.mark.parametrize("what", [*PLACES, *BYTES])
async def test_a_counter_of_junk_is_counted_again_or_refused(tmp_path: Path, what: str) -> None:
    """Looks and renewals go on whatever the counter is; a token is above all that stand in the keys, or refused with
    the name of the file; what is in its place stays as it is."""
    driver = FileDriver(tmp_path)
    await driver.open()
    lease = await driver.grant_lease("me", 10)
    grant = await driver.acquire(lease, LOCK, RECORD)
    assert grant is not None
    WRITES[what](tmp_path / "counter")
    inode = (tmp_path / "counter").lstat().st_ino
    await driver.renew(lease)
    assert (await driver.read([LOCK, OTHER])).entries[LOCK].index == grant.index
    fresh = FileDriver(tmp_path)
    await fresh.open()
    yours = await fresh.grant_lease("you", 10)
    if what in PLACES and what != "huge":
        with pytest.raises(BackendRefused, match="counter"):
            await fresh.acquire(yours, OTHER, RECORD)
    else:
        other = await fresh.acquire(yours, OTHER, RECORD)
        assert other is not None
        assert other.token > grant.token
    assert (tmp_path / "counter").lstat().st_ino == inode
    await driver.close()
    await fresh.close()


def test_a_number_that_no_counter_reaches_is_none(tmp_path: Path) -> None:
    """Twenty nines, twice, are two equal halves and yet no number of ours."""
    (tmp_path / "counter").write_bytes(b"%s %s\n" % (b"9" * 20, b"9" * 20))
    assert Counter(tmp_path / "counter").read() is None


@pytest.mark.parametrize("what", [*PLACES, "binary"])
@pytest.mark.parametrize("name", ["leases/0123456789abcdef", "mutex", "keys.new"])
async def test_junk_elsewhere_is_told_or_left_alone(tmp_path: Path, name: str, what: str) -> None:
    """Junk in the place of a lease file, of the mutex or of the file that a key is written by costs no look and no
    renewal; a change works, or is refused with the name of the file. Nothing waits for it."""
    refused = {("mutex", kind) for kind in ("folder", "fifo", "link", "socket")} | {("keys.new", "folder")}
    driver = FileDriver(tmp_path, request_timeout=1.0)
    await driver.open()
    lease = await driver.grant_lease("me", 10)
    grant = await driver.acquire(lease, LOCK, RECORD)
    assert grant is not None
    WRITES[what](tmp_path / name)
    await driver.renew(lease)
    assert (await driver.read([LOCK])).entries[LOCK].lease == lease.id
    with pytest.raises(BackendRefused, match=Path(name).name) if (name, what) in refused else nullcontext():
        assert await driver.acquire(await driver.grant_lease("you", 10), LOCK, RECORD) is None
        assert await driver.acquire(lease, OTHER, RECORD) is not None
    await driver.close()


@pytest.mark.slow
def test_any_damage_of_a_key_file_is_noticed() -> None:
    """Bytes changed, cut off, doubled or thrown together at random are no key, or the very key; never an exception."""
    chance = random.Random(20)
    raw = KeyFile("cluster-lock/leader/x", "0123456789abcdef", 7, RECORD, b"before\nthat").to_bytes()
    alphabet = raw + b'"{}[]\\u\0\xff0123456789eE.-+NaInfty\n'
    for _ in range(20_000):
        damaged = bytearray(raw)
        for _ in range(chance.randrange(1, 6)):
            at, length = chance.randrange(len(damaged) or 1), chance.randrange(4)
            damaged[at : at + length] = bytes(chance.choices(alphabet, k=chance.randrange(4)))
        found = KeyFile.from_bytes(bytes(damaged))
        assert found is None or found.to_bytes() == bytes(damaged), damaged
