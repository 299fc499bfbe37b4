"""What only the kernel can answer: who is dead, who is told, and which file systems keep locks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aio import PATIENCE, run

from cluster_lock import clock
from cluster_lock.drivers.file import FileDriver
from cluster_lock.errors import BackendRefused, LeaseExpired
from cluster_lock.host import inotify
from cluster_lock.host import private_files as private
from cluster_lock.host.flock import Flock, is_locked
from cluster_lock.values import Grant

LOCK = "leader/x"

HOLDER = """
import asyncio, os, sys, time
from pathlib import Path
from cluster_lock.drivers.file import FileDriver

async def main():
    driver = FileDriver(Path(sys.argv[1]))
    await driver.open()
    lease = await driver.grant_lease("child", 10)
    assert await driver.acquire(lease, "leader/x", b'"child"')
    child = os.fork() if "fork" in sys.argv else 0
    if "fork" in sys.argv and child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(holders: list[subprocess.Popen[str]], directory: Path, *how: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds LOCK, and the pid of the child that it forked after that (0: none)."""
    command = [sys.executable, "-c", HOLDER, str(directory), *how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    holders.append(process)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


async def opened(directory: Path) -> FileDriver:
    driver = FileDriver(directory)
    await driver.open()
    return driver


async def taken(driver: FileDriver) -> Grant:
    grant = await driver.acquire(await driver.grant_lease("me", 10), LOCK, b"{}")
    assert grant is not None
    return grant


async def until_free(driver: FileDriver, position: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            changes = await driver.wait_changed([LOCK], position, 10)
            position = changes.position
            if LOCK in changes.entries and changes.entries[LOCK].lease is None:
                return


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_killed_holder_wakes_the_waiter_by_itself(
    tmp_path: Path, holders: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the holder wakes who waits, by the kernel's word, not by a look now and then; nothing to delete."""
    monkeypatch.setattr(inotify, "LOOK_ANYWAY", 60.0)
    delays = []

    async def main() -> None:
        for _ in range(5):
            process, _ = start(holders, tmp_path)
            driver = await opened(tmp_path)
            position = (await driver.read([LOCK])).position
            waiting = asyncio.create_task(until_free(driver, position))
            await asyncio.sleep(0.05)  # so that it waits already, as it usually does
            killed = clock.now()
            process.kill()
            await waiting
            delays.append(clock.now() - killed)
            grant = await taken(driver)
            assert grant.previous == b'"child"'
            await driver.close()

    run(main())
    print("woken after", [f"{delay * 1000:.1f} ms" for delay in delays])
    assert sorted(delays)[1] < 0.25, delays


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_close_that_is_told_before_the_unlock_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a dying holder's close before it drops the lock; who looks too early looks again."""
    monkeypatch.setattr(inotify, "LOOK_ANYWAY", 60.0)
    driver, other = await opened(tmp_path), await opened(tmp_path)
    grant = await taken(driver)
    waiting = asyncio.create_task(until_free(other, (await other.read([LOCK])).position))
    await asyncio.wait([waiting], timeout=0.05)
    descriptor = os.open(tmp_path / "leases" / grant.lease.id, os.O_RDWR)
    os.close(descriptor)  # the event of a close, the lock still held
    held = driver._store._mine[grant.lease.id].descriptor
    asyncio.get_running_loop().call_later(0.02, fcntl.flock, held, fcntl.LOCK_UN)  # makes no event
    await waiting
    await driver.close()
    await other.close()


@pytest.mark.process
async def test_stopped_holder_keeps_its_lock(tmp_path: Path, holders: list[subprocess.Popen[str]]) -> None:
    """A holder that is stopped has not died: files do not expire, whatever ttl was asked for."""

    process, _ = start(holders, tmp_path)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # noqa: ASYNC222 - a moment
    driver = await opened(tmp_path)
    assert await driver.acquire(await driver.grant_lease("me", 10), LOCK, b"{}") is None
    await driver.close()


@pytest.mark.process
async def test_child_of_a_dead_holder_does_not_keep_its_lock(
    tmp_path: Path, holders: list[subprocess.Popen[str]]
) -> None:
    """A process forked from the holder, as a pool's workers are, lives on, and the dead holder's lock is free."""
    process, child = start(holders, tmp_path, "fork")
    try:
        driver = await opened(tmp_path)
        position = (await driver.read([LOCK])).position
        process.kill()
        await until_free(driver, position)
        os.kill(child, 0)
        await taken(driver)
        await driver.close()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_forked_child_neither_holds_nor_ends_what_the_parent_holds(tmp_path: Path) -> None:
    """In a forked child the lease is gone, and closing or dropping the driver there leaves the parent's lock alone."""
    driver, other = await opened(tmp_path), await opened(tmp_path)
    grant = await taken(driver)
    assert exit_code_of_child(driver, grant) == 0
    await driver.renew(grant.lease)
    assert (await other.read([LOCK])).entries[LOCK].lease == grant.lease.id
    await driver.close()
    await other.close()


def exit_code_of_child(driver: FileDriver, grant: Grant) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(in_child(driver, grant))
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(driver: FileDriver, grant: Grant) -> int:
    """No verb used here waits, so each is run to its end without a loop: the loop is the parent's."""
    for call, expected in (
        (driver.renew(grant.lease), LeaseExpired),
        (driver.revoke(grant.lease), StopIteration),
        (driver.close(), StopIteration),
    ):
        try:
            call.send(None)
        except expected:
            continue
        return 1
    return 0


def test_two_flocks_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    """The lock belongs to the open file, not to the process, and asking who holds it neither takes nor touches it."""
    one, other = Flock(tmp_path / "x"), Flock(tmp_path / "x")
    assert not is_locked(tmp_path / "x")
    assert one.acquire()
    for _ in range(3):
        assert is_locked(tmp_path / "x")
        assert not other.acquire()
    one.release()
    one.release()
    assert not is_locked(tmp_path / "x")
    assert other.acquire()
    other.release()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_probes_do_not_wake_anybody(tmp_path: Path) -> None:
    """Looking whether a holder lives makes no event for those who wait for its death: no storm of waiters."""
    driver, other = await opened(tmp_path), await opened(tmp_path)
    await taken(driver)
    rival = await other.grant_lease("rival", 10)
    watch = inotify.watch_of((tmp_path / "keys", tmp_path / "leases"), tmp_path)
    with inotify.listening(watch) as bell:
        for _ in range(10):
            await other.read([LOCK])
            assert await other.acquire(rival, LOCK, b"{}") is None
            await driver.scan("leader/")
        assert await bell.wait(0.1) == set()
    watch.close()
    await driver.close()
    await other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_without_an_inotify_instance_it_polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel grants no more instances a waiter is told all the same, a polling period later."""

    def refused(self: object, *folders: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(inotify.Inotify, "__init__", refused)
    driver, other = await opened(tmp_path), await opened(tmp_path)
    grant = await taken(driver)
    waiting = asyncio.create_task(until_free(other, (await other.read([LOCK])).position))
    await driver.release(grant, b"{}")
    await waiting
    await driver.close()
    await other.close()


FAR = ["nfs4", "cifs", "9p", "gpfs", "fakeowner", "fuse.grpcfuse", "vboxsf", "prl_fs", "fuse.vmhgfs-fuse", "osxfs"]


@pytest.mark.parametrize("kind", [*FAR, *(f"fuse.{name}" for name in ("sshfs", "s3fs", "rclone", "juicefs"))])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A folder on a network file system, or of a virtual machine's host, is refused by its kind, with what to choose
    instead."""
    monkeypatch.setattr(private, "filesystem_of", lambda path: kind)
    with pytest.raises(BackendRefused, match=rf"{kind}.*local disk"):
        run(opened(tmp_path))


@pytest.mark.parametrize("kind", [None, "ext4", "btrfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs"])
def test_a_disk_of_this_machine_is_good(kind: str | None) -> None:
    """What stands on this machine is taken, also in a container without root, and where nothing is known."""
    assert not private.is_far(kind)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's table of mounts")
def test_file_system_is_found_in_the_table_of_mounts(tmp_path: Path) -> None:
    """The kind of file system is that of the mount whose device holds the folder."""
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / /proc rw - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime master:1 - nfs4 server:/export rw,vers=4.2\n"
    )
    assert private.filesystem_of(tmp_path, mounts) == "nfs4"
    assert private.filesystem_of(tmp_path, tmp_path / "none") is None
    assert not private.is_far(private.filesystem_of(tmp_path))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where flock does not exist the backend says so: a lock file that outlives a crash is never used instead."""

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)

    async def main() -> None:
        driver = await opened(tmp_path)
        with pytest.raises(BackendRefused, match="no file locks"):
            await driver.grant_lease("me", 10)

    before = set(os.listdir("/proc/self/fd"))
    run(main())
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_file_system_whose_locks_do_not_exclude_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flock that is granted and that a second look at the file does not meet is no lock: the system's word is not
    enough."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    driver = await opened(tmp_path)
    with pytest.raises(BackendRefused, match="lets two lock one file"):
        await driver.grant_lease("me", 10)
