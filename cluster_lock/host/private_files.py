"""Folders and files that belong to us alone, on a disk of this machine."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused

from .trusted_path import check_way_to, user_name

_NETWORKS = "9p afs beegfs ceph cifs coda davfs gpfs glusterfs lustre ncpfs nfs nfs4 orangefs pvfs2 smb3 smbfs wekafs"
_SHARED_BY_HOSTS = "fakeowner osxfs prl_fs vboxsf virtiofs vmhgfs"
"""What a virtual machine shows of its host: Docker Desktop, Parallels, VirtualBox, VMware."""
_FAR = frozenset(f"{_NETWORKS} {_SHARED_BY_HOSTS}".split())
_FUSE = "fuse."
_FUSE_NEAR = frozenset(
    _FUSE + name for name in ("bindfs", "encfs", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs-3g", "securefs")
)
"""Of what a program serves as a file system: those that stand on a disk of this machine. Others may reach anywhere
(sshfs, rclone, s3fs, Docker Desktop's grpcfuse)."""


def is_far(kind: str | None) -> bool:
    """Is it a kind of file system where flock is unknown to other machines, or known late, or lost when the server
    restarts?"""
    return kind in _FAR or (kind is not None and kind.startswith(_FUSE) and kind not in _FUSE_NEAR)


_NO_FILE = {errno.EISDIR, errno.ENXIO}
"""A folder, or a pipe or socket that is opened for writing."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_BINARY = getattr(os, "O_BINARY", 0)
LARGEST = 4 * 1024 * 1024
"""Bytes that a file of ours has at most."""
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Map what the operating system raises to the library's own errors."""
    try:
        yield
    except OSError as error:
        where, why = error.filename2 or error.filename or path, error.strerror or str(error)
        if error.errno == errno.ELOOP:
            raise PermissionRefused(f"{where} is a symbolic link; such a file is never followed") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionRefused(f"{where}: {why}") from error
        if error.errno in _NO_FILE:
            raise BackendRefused(
                f"{where} is no file, where one of ours belongs: look at it, then delete it"
            ) from error
        if error.errno in _FULL:
            raise BackendUnavailable(f"no space left on the disk of {where} ({why})") from error
        raise BackendUnavailable(f"{where}: {why}") from error


def make_private_directory(path: Path) -> None:
    """Make `path`, 0700, and what is missing above it, or accept it as it is if nobody else can put anything there, nor
    put anything in its place.

    Raises PermissionRefused if it is another user's or open to others, or on a way that is; BackendRefused if it is
    none, or on a network.
    """
    check_way_to(path)
    try:
        _make(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise BackendRefused(f"{path} is not a folder, and none can be made there: {error.strerror}") from error
    if sys.platform != "win32":
        for found in (path.lstat(), path.stat()):  # of a symbolic link both it and what it leads to must be ours
            if found.st_uid not in (os.geteuid(), 0 if stat.S_ISLNK(found.st_mode) else os.geteuid()):
                raise PermissionRefused(
                    f"{path} belongs to user {user_name(found.st_uid)}, but this process runs as"
                    f" {user_name(os.geteuid())}: run it as that user, or choose another directory"
                )
        if path.stat().st_mode & 0o022:
            raise PermissionRefused(f"others may write to {path}, so nothing in it can be trusted: chmod go-w {path}")
    kind = filesystem_of(path)
    if is_far(kind):
        raise BackendRefused(
            f"{path} is on a network file system, or in a folder that another machine shares ({kind}), where file locks"
            " cannot be relied on: choose a directory on a local disk (with Docker Desktop a named volume), or another"
            " backend"
        )


def _make(path: Path) -> None:
    """As `mkdir -p`, and each folder that is made is 0700: `Path.mkdir` leaves those above to the umask."""
    if path.is_dir():
        return
    if not os.path.lexists(path.parent):
        _make(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # made by another process meanwhile, or no folder
        if not path.is_dir():
            raise


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system that holds `path` ("ext4"), None where the system does not say."""
    device = path.stat().st_dev
    if sys.platform != "linux" or not mounts.exists():
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0]
    return None


def read_private(path: Path) -> bytes | None:
    """What is in the file, None if there is none. Raises PermissionRefused if it is a link or another user's, or
    nothing that has an end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | NOFOLLOW | _BINARY)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        _check_file(path, found)
        if found.st_size > LARGEST:
            raise PermissionRefused(f"{path} has {found.st_size} bytes, more than any of ours: look at it, delete it")
        return _all(descriptor)
    finally:
        os.close(descriptor)


def open_to_append(path: Path) -> int:
    """A descriptor that writes to the end of the file, made if need be. Raises PermissionRefused if it is a link or
    another user's, or no file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NOFOLLOW | _BINARY, 0o600)
    try:
        _check_file(path, os.fstat(descriptor))
        if hasattr(os, "set_blocking"):
            os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_place(path: Path) -> None:
    """Raise PermissionRefused if what stands where a file of ours belongs is none of ours."""
    try:
        _check_file(path, path.lstat())
    except FileNotFoundError:
        return


def _check_file(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise PermissionRefused(f"{path} is a symbolic link; such a file is never followed")
    if not stat.S_ISREG(found.st_mode):
        raise PermissionRefused(f"{path} is not a regular file: look at it, then delete it")
    if sys.platform != "win32" and found.st_uid != os.geteuid():
        raise PermissionRefused(f"{path} belongs to user {user_name(found.st_uid)}: look at it, then delete it")
    if sys.platform != "win32" and found.st_mode & 0o022:
        raise PermissionRefused(f"others may write to {path}: look at it, then delete it")


def _all(descriptor: int) -> bytes:
    content = b""
    while len(content) <= LARGEST and (more := os.read(descriptor, 65536)):
        content += more
    return content


def write_private(path: Path, content: bytes, *, by_way_of: Path, whole: bool = False) -> None:
    """Put `content` at `path` so that every reader sees all of it or nothing. One writer at a time uses `by_way_of`.
    `whole`: after a power cut too, when either this or what was there before is there."""
    by_way_of.unlink(missing_ok=True)  # of a writer that died
    descriptor = os.open(by_way_of, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if whole:
                os.fsync(descriptor)
        by_way_of.replace(path)
    except BaseException:
        by_way_of.unlink(missing_ok=True)  # a full disk has no room for halves
        raise


def write_all(descriptor: int, content: bytes) -> None:
    """`os.write` may write a part, on a disk that is all but full, and call that a success."""
    while content:
        content = content[os.write(descriptor, content) :]


def delete(path: Path) -> None:
    """Delete a file, or whatever it is, if it is there. A folder stays: no file of ours is one."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def sync_names(folder: Path) -> None:
    """Return when a power cut could not take back which files are in `folder`."""
    if sys.platform == "win32":  # has no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
