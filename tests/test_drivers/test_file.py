"""What the contract does not say about files: what stands on the disk, and what a damaged folder leads to."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from support.aio import PATIENCE, run

from cluster_lock.drivers.file import FileDriver
from cluster_lock.drivers.file.counter import Counter
from cluster_lock.drivers.file.keyfile import KeyFile, file_name
from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired, PermissionRefused
from cluster_lock.host.flock import Flock, is_locked
from cluster_lock.values import Grant

LOCK = "leader/telegram/42"


async def opened(directory: Path) -> FileDriver:
    driver = FileDriver(directory, request_timeout=1.0)
    await driver.open()
    return driver


async def taken(driver: FileDriver, record: bytes = b"{}") -> Grant:
    grant = await driver.acquire(await driver.grant_lease("me", 10), LOCK, record)
    assert grant is not None
    return grant


async def taken_at_last(driver: FileDriver) -> Grant:
    """Of a folder that was replaced: not at once."""
    lease = await driver.grant_lease("me", 10)
    async with asyncio.timeout(PATIENCE):
        while (grant := await driver.acquire(lease, LOCK, b"{}")) is None:
            await driver.wait_changed([LOCK], (await driver.read([LOCK])).position, 0.1)
    return grant


def key_path(directory: Path) -> Path:
    return directory / "keys" / "cluster-lock+leader+telegram+42.json"


# What stands there.


async def test_a_person_reads_it_with_cat(tmp_path: Path) -> None:
    """The file of a held lock shows the record as it is, and the lease file names the process."""
    driver = await opened(tmp_path)
    grant = await taken(driver, b'{"holder": "web-1"}')
    lines = key_path(tmp_path).read_text().splitlines()
    assert json.loads(lines[0])["lease"] == grant.lease.id
    assert lines[1] == '{"holder": "web-1"}'
    assert json.loads((tmp_path / "leases" / grant.lease.id).read_text())["pid"] == os.getpid()
    await driver.close()


def test_nobody_else_can_read_or_write(tmp_path: Path) -> None:
    """The folder is made 0700 and every file in it 0600, whatever the umask says."""

    async def main() -> None:
        driver = await opened(tmp_path / "state")
        grant = await taken(driver)
        await driver.announce(grant.lease, "standby/me", b"{}")
        found = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in found}
        assert len(found) >= 7, found
        assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in found}
        await driver.close()

    before = os.umask(0)
    try:
        run(main())
    finally:
        os.umask(before)


def test_different_keys_have_different_short_names() -> None:
    """No two keys share a file name, not even on a file system that ignores case, and none is too long for one."""
    keys = ["a/b", "a+b", "A/b", "a%2fb", "a/b/", "..", "a/..", ".", "ä", "a" * 400, "a" * 400 + "b", "%", "日" * 200]
    names = [file_name(key) for key in keys]
    assert len({name.casefold() for name in names}) == len(keys)
    assert all(len(name.encode()) <= 255 and "/" not in name and name not in (".", "..") for name in names), names


@pytest.mark.parametrize("previous", [None, b"", b"before\nthat"])
def test_key_file_gives_back_every_byte(previous: bytes | None) -> None:
    """A record comes back byte for byte, line breaks and all, and damage of any single byte count is noticed."""
    key = KeyFile("a/b", "0123456789abcdef", 7, b'{"a": 1}\n\n\xff', previous)
    raw = key.to_bytes()
    assert KeyFile.from_bytes(raw) == key
    assert [KeyFile.from_bytes(raw[:length]) for length in range(len(raw))] == [None] * len(raw)


@pytest.mark.parametrize("raw", [b"[]", b"{}", b"null\n", b'{"key": 1}', b"\xff", b"not ours", b'{"record": "x"}\n'])
def test_other_bytes_are_no_key(raw: bytes) -> None:
    """What we did not write is told from what we wrote."""
    assert KeyFile.from_bytes(raw) is None


async def test_copied_key_file_is_foreign(tmp_path: Path) -> None:
    """A key file that was copied over another key's is not taken for that key's."""
    driver = await opened(tmp_path)
    grant = await taken(driver)
    (tmp_path / "keys" / file_name("cluster-lock/leader/other")).write_bytes(key_path(tmp_path).read_bytes())
    with pytest.raises(ForeignValue, match="leader/other"):
        await driver.acquire(grant.lease, "leader/other", b"{}")
    assert await driver.scan("leader/") == [(await driver.read([LOCK])).entries[LOCK]]
    await driver.close()


@pytest.mark.parametrize("left", [b"", b"\0" * 512])
async def test_file_emptied_by_a_power_cut_is_free(tmp_path: Path, left: bytes) -> None:
    """A key file without content, as some file systems leave it after a power cut, blocks nobody."""
    driver = await opened(tmp_path)
    key_path(tmp_path).write_bytes(left)
    key_path(tmp_path).chmod(0o600)
    assert (await taken(driver)).previous is None
    await driver.close()


# The fencing token.


async def test_token_goes_on_when_everything_but_the_counter_is_deleted(tmp_path: Path) -> None:
    """The counter has a file of its own: deleting all keys does not set it back."""
    first = await opened(tmp_path)
    token = (await taken(first)).token
    await first.close()
    key_path(tmp_path).unlink()
    second = await opened(tmp_path)
    assert (await taken(second)).token > token
    await second.close()


@pytest.mark.parametrize("left", [None, b"", b"\0" * 84, b"12 13\n", b"garbage" * 100])
async def test_lost_counter_is_found_again_in_the_keys(tmp_path: Path, left: bytes | None) -> None:
    """A counter that is gone or damaged goes on above the largest number that any key has."""
    first = await opened(tmp_path)
    tokens = [(await taken(first)).token]
    await first.close()
    (tmp_path / "counter").unlink()
    if left is not None:
        (tmp_path / "counter").write_bytes(left)
        (tmp_path / "counter").chmod(0o600)
    second = await opened(tmp_path)
    tokens.append((await taken(second)).token)
    await second.close()
    assert tokens[1] > tokens[0]
    assert Counter(tmp_path / "counter").read() == tokens[1]


def test_counter_survives_a_torn_line(tmp_path: Path) -> None:
    """Damage to the line that was written last leaves the number before it, whichever byte was hit."""
    counter = Counter(tmp_path / "counter")
    for number in (7, 8, 9):
        counter.write(number, durably=True)
    whole = (tmp_path / "counter").read_bytes()
    at = whole.index(b"9")
    for position in (at, at + 21, at - 5, at - 19):
        torn = whole[:position] + b"7" + whole[position + 1 :]
        (tmp_path / "counter").write_bytes(torn)
        assert counter.read() == 8, torn


async def test_token_is_on_the_disk_before_it_is_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a grant is returned its number has been synced, in the counter's own file."""
    synced: list[tuple[int, bytes]] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and (tmp_path / "counter").exists():
            synced.append((os.fstat(descriptor).st_ino, (tmp_path / "counter").read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    driver = await opened(tmp_path)
    grant = await taken(driver)
    inode, content = synced[-1]
    assert inode == (tmp_path / "counter").stat().st_ino
    assert f"{grant.token:020}".encode() in content
    await driver.close()


def test_grant_that_failed_halfway_is_finished_by_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An acquire that could not write the counter is refused; repeated, it is granted with a number that is counted."""

    async def main() -> None:
        driver = await opened(tmp_path)
        lease = await driver.grant_lease("me", 10)
        with monkeypatch.context() as broken:
            broken.setattr(Counter, "write", failing)
            with pytest.raises(BackendUnavailable, match="Input/output"):
                await driver.acquire(lease, LOCK, b"{}")
        grant = await driver.acquire(lease, LOCK, b"{}")
        assert grant is not None
        assert Counter(tmp_path / "counter").read() == grant.token
        await driver.close()

    def failing(self: Counter, number: int, *, durably: bool) -> None:
        raise OSError(5, "Input/output error")

    run(main())


# Damage by hand.


async def test_deleted_lease_file_ends_the_lease(tmp_path: Path) -> None:
    """Deleting a lease's file frees its locks at once; the owner is told, and a new file there brings nothing back."""
    driver, other = await opened(tmp_path), await opened(tmp_path)
    grant = await taken(driver)
    position = (await other.read([LOCK])).position
    path = tmp_path / "leases" / grant.lease.id
    content = path.read_bytes()
    path.unlink()
    assert (await other.wait_changed([LOCK], position, 10)).entries[LOCK].lease is None
    path.write_bytes(content)
    with pytest.raises(LeaseExpired):
        await driver.renew(grant.lease)
    assert (await driver.read([LOCK])).entries[LOCK].lease is None
    assert (await taken(other)).token > grant.token
    await driver.close()
    await other.close()


async def test_deleted_folder_is_made_anew(tmp_path: Path) -> None:
    """A folder that is gone ends what was held there and wakes who waits; the next lease is granted as on day one."""
    driver = await opened(tmp_path / "state")
    grant = await taken(driver)
    position = (await driver.read([LOCK])).position
    waiting = asyncio.create_task(driver.wait_changed([LOCK], position, 10))
    (tmp_path / "state").rename(tmp_path / "gone")
    assert (await waiting).entries[LOCK].lease is None
    with pytest.raises(LeaseExpired):
        await driver.renew(grant.lease)
    again = await taken_at_last(driver)
    changes = await driver.wait_changed([LOCK], None, 10)
    assert changes.entries[LOCK].lease == again.lease.id
    waiting = asyncio.create_task(driver.wait_changed([LOCK], changes.position, 10))
    await driver.release(again, b"{}")
    assert (await waiting).entries[LOCK].lease is None
    await driver.close()


async def test_busy_folder_is_unavailable_in_time_and_still_readable(tmp_path: Path) -> None:
    """While a stopped process sits on the folder's mutex changes fail by name and in time, reads and renewals go on."""
    driver = await opened(tmp_path)
    grant = await taken(driver)
    mutex = Flock(tmp_path / "mutex")
    assert mutex.acquire()
    with pytest.raises(BackendUnavailable, match="mutex"):
        await driver.acquire(grant.lease, "leader/other", b"{}")
    await driver.renew(grant.lease)
    assert (await driver.read([LOCK])).entries[LOCK].index == grant.index
    mutex.release()
    await driver.release(grant, b"{}")
    await driver.close()


def test_deleted_mutex_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that was deleted and made anew meanwhile is no lock."""
    path = tmp_path / "mutex"
    stat_of = Path.lstat
    with monkeypatch.context() as patched:

        def lstat(self: Path) -> os.stat_result:
            path.rename(tmp_path / "old")
            path.touch()
            return stat_of(self)

        patched.setattr(Path, "lstat", lstat)
        assert not Flock(path).acquire()
    assert not is_locked(tmp_path / "old")
    assert Flock(path).acquire()


async def test_sweeping_keeps_the_last_words_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next lease deletes what dead processes left, but for what they wrote about locks; the living keep all."""
    dead, living = await opened(tmp_path), await opened(tmp_path)
    mine = await living.grant_lease("living", 10)
    await living.announce(mine, "standby/living", b"{}")
    grant = await taken(dead, b'"dead"')
    await dead.announce(grant.lease, "standby/dead", b"{}")
    (tmp_path / "keys.new").write_bytes(b"half a rec")
    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        await dead.close()
    assert len(list((tmp_path / "leases").iterdir())) == 2
    lease = await living.grant_lease("next", 10)
    assert {path.name for path in (tmp_path / "leases").iterdir()} == {mine.id, lease.id}
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {
        "cluster-lock+standby+living.json",
        "cluster-lock+leader+telegram+42.json",
    }
    next_grant = await living.acquire(lease, LOCK, b"{}")
    assert next_grant is not None
    assert next_grant.previous == b'"dead"'
    await living.close()


# Who may.


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """A folder in which others can put files proves nothing, so it is refused with what to do about it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(PermissionRefused, match="chmod go-w"):
        run(opened(tmp_path / "state"))


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that belongs to somebody else is refused with both names, and the exit code is 77."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 54321)
    with pytest.raises(PermissionRefused, match=f"belongs to user .* runs as {owner + 54321}") as refused:
        run(opened(tmp_path))
    assert refused.value.exit_code == 77


def test_link_that_another_user_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody else put where our folder should be is not followed, though it leads to one of ours."""
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    run(opened(tmp_path / "link"))
    real = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        found = list(real(self))
        return os.stat_result([*found[:4], found[4] + 54321, *found[5:]])

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(PermissionRefused, match="belongs to user"):
        run(opened(tmp_path / "link"))


async def test_lock_file_of_another_user_is_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock's file that belongs to another user is nobody's grant, and who wants the lock is told whose it is."""
    owner = tmp_path.stat().st_uid  # noqa: ASYNC240 - a moment
    driver = await opened(tmp_path)
    grant = await taken(driver)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: owner + 54321)
        assert (await driver.read([LOCK])).entries[LOCK].lease is None
    key_path(tmp_path).chmod(0o666)
    with pytest.raises(ForeignValue, match=r"others may write to .*leader/telegram/42"):
        await driver.acquire(grant.lease, LOCK, b"{}")
    await driver.close()


@pytest.mark.parametrize("name", ["keys/cluster-lock+leader+telegram+42.json", "counter"])
async def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    """A symbolic link in place of a file of ours is refused by name, and what it leads to is untouched."""
    driver = await opened(tmp_path / "state")
    lease = await driver.grant_lease("me", 10)
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "state" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(BackendRefused, match="symbolic link"):
        await driver.acquire(lease, LOCK, b"{}")
    assert (tmp_path / "precious").read_text() == "keep"
    await driver.close()


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "state").write_text("I am a file")
    for path in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(BackendRefused, match="not a folder"):
            run(opened(path))


async def test_ttl_has_a_floor(tmp_path: Path) -> None:
    """A ttl below the floor is refused with the floor."""
    driver = await opened(tmp_path)
    with pytest.raises(BackendRefused, match=r"0\.1 s"):
        await driver.grant_lease("me", 0.05)
    await driver.close()


def test_names_are_those_that_the_documentation_shows() -> None:
    """A usual name is readable on the disk."""
    assert file_name("cluster-lock/leader/telegram/42") == "cluster-lock+leader+telegram+42.json"
    assert file_name("cluster-lock/standby/web-1.example.org") == "cluster-lock+standby+web-1.example.org.json"
