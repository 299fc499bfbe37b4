"""A disk that is full, and a folder that is no longer where it was."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.aio import PATIENCE, run, until
from support.small_disk import AS_ROOT, fill, small_disk

from cluster_lock import clock
from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.file.counter import Counter
from cluster_lock.drivers.file.keyfile import KeyFile
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.host import inotify
from cluster_lock.host.private_files import make_private_directory
from cluster_lock.values import Grant

LOCK, RECORD = "leader/x", b'{"holder": "me"}'


async def opened(directory: Path) -> FileDriver:
    driver = FileDriver(directory, request_timeout=1.0)
    await driver.open()
    return driver


async def taken(driver: FileDriver) -> Grant:
    grant = await driver.acquire(await driver.grant_lease("me", 10), LOCK, RECORD)
    assert grant is not None
    return grant


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path, "size=256k,mode=700") as disk:
        yield disk


@AS_ROOT
async def test_a_full_disk_takes_nothing_and_loses_nothing(disk: Path) -> None:
    """On a full disk the holder renews and is seen; no acquire, release, hand-over or lease is told as done, each says
    that there is no space and where; no half of a file is left; with room again all of it works, on a larger token."""
    folder = disk / "locks"
    driver, other = await opened(folder), await opened(folder)
    grant, rival = await taken(driver), await other.grant_lease("rival", 10)
    await other.announce(rival, "standby/other", RECORD)
    heir = (await driver.read(["standby/other"])).entries["standby/other"]
    before = {path: path.read_bytes() for path in (folder / "keys").iterdir()}
    fill(disk)
    for attempt in (
        driver.release(grant, b"farewell"),
        driver.transfer(grant, heir, RECORD),
        other.acquire(rival, "leader/free", RECORD),
        other.announce(rival, "standby/other", b"another"),
        other.grant_lease("third", 10),
    ):
        with pytest.raises(BackendUnavailable, match=f"no space left on the disk of {folder}"):
            await attempt
    await driver.renew(grant.lease)
    assert (await other.read([LOCK])).entries[LOCK].lease == grant.lease.id
    assert {path: path.read_bytes() for path in (folder / "keys").iterdir()} == before
    assert not (folder / "keys.new").exists()
    assert len(list((folder / "leases").iterdir())) == 2
    (disk / "fill").unlink()
    await driver.release(grant, b"farewell")
    again = await other.acquire(rival, LOCK, RECORD)
    assert again is not None
    assert again.previous == b"farewell"
    assert again.token > grant.token
    await driver.close()
    await other.close()


@AS_ROOT
async def test_a_lease_ends_on_a_full_disk(disk: Path) -> None:
    """Who cannot release its lock for want of room can still revoke its lease, and the lock is free at once."""
    driver, other = await opened(disk / "locks"), await opened(disk / "locks")
    grant = await taken(driver)
    position = (await other.read([LOCK])).position
    fill(disk)
    await driver.revoke(grant.lease)
    assert (await other.wait_changed([LOCK], position, 5)).entries[LOCK].lease is None
    (disk / "fill").unlink()
    assert (await taken(other)).token > grant.token
    await driver.close()
    await other.close()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a disk that is all but full does: a write stops in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_stops_in_the_middle_is_no_write(tmp_path: Path) -> None:
    """A key of which only a part could be written is the key from before, and half a number is none."""
    driver = await opened(tmp_path)
    grant = await taken(driver)
    key = tmp_path / "keys" / "cluster-lock+leader+x.json"
    before = key.read_bytes()
    with files_of_at_most(100), pytest.raises(BackendUnavailable, match="no space"):
        await driver.release(grant, b"x" * 1000)
    assert key.read_bytes() == before
    number = Counter(tmp_path / "counter").read()
    with files_of_at_most(20), pytest.raises(OSError, match="large"):
        Counter(tmp_path / "counter").write(1_000_000, durably=False)
    assert Counter(tmp_path / "counter").read() == number
    await driver.release(grant, RECORD)
    await driver.close()


async def test_a_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that takes a lock's name was synced whole before: after a power cut there is no half of one."""
    synced: list[bytes] = []
    sync, put = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        assert synced[-1] == self.read_bytes(), "renamed before it was synced"
        assert KeyFile.from_bytes(synced[-1]) is not None
        return put(self, target)

    driver = await opened(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    await driver.release(await taken(driver), b"farewell")
    await driver.close()


# Another folder in the place of ours.


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("gone"))


def renamed_above(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("gone"))


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def linked_elsewhere(folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    (folder.parent / "another").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "another")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one looks ten times a second")
@pytest.mark.parametrize("swap", [renamed, renamed_above, deleted, linked_elsewhere])
async def test_a_holder_hears_at_once_that_its_folder_was_replaced(
    tmp_path: Path, swap: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds a lock in a folder that is renamed, deleted, or linked elsewhere, itself or one above it, is told by
    the kernel and not by a look of its own, and its lease is gone; who had opened the folder before gives nothing in
    the new one for longer than such a look takes."""
    monkeypatch.setattr(inotify, "LOOK_ANYWAY", 60.0)
    folder = tmp_path / "above" / "locks"
    holder, standby = await opened(folder), await opened(folder)
    grant = await taken(holder)
    before = (await holder.read([LOCK])).position
    await standby.read([LOCK])
    waiting = asyncio.create_task(holder.wait_changed([LOCK], before, 30))
    await until(lambda: holder._watch is not None)
    await asyncio.sleep(0)
    began = clock.now()
    swap(folder)
    lease = await standby.grant_lease("standby", 10)
    assert await standby.acquire(lease, LOCK, RECORD) is None
    async with asyncio.timeout(PATIENCE):
        assert (await waiting).entries[LOCK].lease is None
    with pytest.raises(LeaseExpired):
        await holder.renew(grant.lease)
    async with asyncio.timeout(PATIENCE):
        while (again := await standby.acquire(lease, LOCK, RECORD)) is None:
            await standby.wait_changed([LOCK], (await standby.read([LOCK])).position, 0.1)
    assert clock.now() - began > 1
    assert again.token > grant.token
    await holder.close()
    await standby.close()


async def test_a_change_in_a_folder_that_is_replaced_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that began in one folder and ended in another one is not told as done."""
    folder = tmp_path / "locks"
    driver = await opened(folder)
    lease = await driver.grant_lease("me", 10)
    write = Counter.write

    def and_swap(self: Counter, number: int, *, durably: bool) -> None:
        write(self, number, durably=durably)
        folder.rename(tmp_path / "gone")

    with monkeypatch.context() as patched:
        patched.setattr(Counter, "write", and_swap)
        with pytest.raises(BackendUnavailable, match="replaced"):
            await driver.acquire(lease, LOCK, RECORD)
    await driver.close()


# Who may put another folder in the place of ours.


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """All folders that are made, on the way too, are ours alone under any umask."""
    before = os.umask(0)
    try:
        make_private_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    found = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in found] == [0o700] * 3


@pytest.mark.parametrize("made", [True, False], ids=["made", "to be made"])
def test_a_folder_that_others_may_replace_is_refused(tmp_path: Path, made: bool) -> None:
    """Below a folder that others may write to nothing is trusted, nor made, and the sentence says which one; the sticky
    bit leaves renaming to the owner, so that will do."""
    folder = tmp_path / "open" / "a" / "locks"
    (tmp_path / "open").mkdir()
    if made:
        folder.mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionRefused, match=f"others may write to {tmp_path}/open above it.*chmod go-w"):
        run(opened(folder))
    assert folder.exists() == made
    (tmp_path / "open").chmod(0o1777)
    run(opened(folder))


@AS_ROOT
def test_a_folder_of_a_stranger_above_ours_is_refused(tmp_path: Path) -> None:
    """Who owns a folder above ours could put another one in its place: refused with his number and the folder, on the
    way of a link too."""
    (tmp_path / "his" / "mine").mkdir(parents=True)
    os.chown(tmp_path / "his", 12345, 12345)
    (tmp_path / "link").symlink_to(tmp_path / "his" / "mine")
    for folder in (tmp_path / "his" / "mine", tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(PermissionRefused, match=f"{tmp_path}/his above it belongs to user 12345"):
            run(opened(folder))


@AS_ROOT
def test_the_group_of_one_user_alone_may_write(tmp_path: Path) -> None:
    """A folder above that a group may write to is refused, unless it is root's own group."""
    (tmp_path / "shared" / "mine").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o770)
    os.chown(tmp_path / "shared", 0, 12345)
    with pytest.raises(PermissionRefused, match="others may write to"):
        run(opened(tmp_path / "shared" / "mine"))
    os.chown(tmp_path / "shared", 0, 0)
    run(opened(tmp_path / "shared" / "mine"))


@AS_ROOT
@pytest.mark.parametrize(
    ("mode", "group", "trusted"), [("2777", 0, True), ("2775", 0, True), ("777", 0, False), ("2777", 12345, False)]
)
def test_the_root_of_a_volume_of_ours_may_be_open(tmp_path: Path, mode: str, group: int, trusted: bool) -> None:
    """A volume as Kubernetes gives it to a group of ours (root's, setgid) holds a folder of ours, though all may write
    to its root; another mount that all may write to does not."""
    with small_disk(tmp_path, f"mode={mode},gid={group}"):
        if trusted:
            run(opened(tmp_path / "state"))
        else:
            with pytest.raises(PermissionRefused, match=f"others may write to {tmp_path} above it"):
                run(opened(tmp_path / "state"))


def test_a_fifo_in_the_place_of_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing waits for who would write into it."""
    os.mkfifo(tmp_path / "locks")
    with pytest.raises(BackendRefused, match="not a folder"):
        run(opened(tmp_path / "locks"))
