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

NETWORK_FILESYSTEMS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
    }
    | {"nfs4", "smb3", "smbfs", "virtiofs"}
)
"""Where flock is unknown to other machines, or known late, or lost when the server restarts (coordination trap 31)."""

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Map what the operating system raises to the library's own errors."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or path, error.strerror or str(error)
        if error.errno == errno.ELOOP:
            raise PermissionRefused(f"{where} is a symbolic link; such a file is never followed") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionRefused(f"{where}: {why}") from error
        raise BackendUnavailable(f"{where}: {why}") from error


def make_private_directory(path: Path) -> None:
    """Make `path`, 0700, or accept it as it is if nobody else can put anything there.

    Raises PermissionRefused if it is another user's or open to others; BackendRefused if it is none, or on a network.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BackendRefused(f"{path} is not a folder, and none can be made there: {error.strerror}") from error
    if sys.platform != "win32":
        for found in (path.lstat(), path.stat()):  # of a symbolic link both it and what it leads to must be ours
            if found.st_uid not in (os.geteuid(), 0 if stat.S_ISLNK(found.st_mode) else os.geteuid()):
                raise PermissionRefused(
                    f"{path} belongs to user {_user(found.st_uid)}, but this process runs as {_user(os.geteuid())}:"
                    " run it as that user, or choose another directory"
                )
        if path.stat().st_mode & 0o022:
            raise PermissionRefused(f"others may write to {path}, so nothing in it can be trusted: chmod go-w {path}")
    kind = filesystem_of(path)
    if kind in NETWORK_FILESYSTEMS:
        raise BackendRefused(
            f"{path} is on a network file system ({kind}), where file locks cannot be relied on:"
            " choose a directory on a local disk, or another backend"
        )


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
    """What is in the file, None if there is none. Raises PermissionRefused if it is a link or another user's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if sys.platform != "win32" and found.st_uid != os.geteuid():
            raise PermissionRefused(f"{path} belongs to user {_user(found.st_uid)}: look at it, then delete it")
        if sys.platform != "win32" and found.st_mode & 0o022:
            raise PermissionRefused(f"others may write to {path}: look at it, then delete it")
        if not stat.S_ISREG(found.st_mode):
            raise PermissionRefused(f"{path} is not a regular file: look at it, then delete it")
        return file.read()


def write_private(path: Path, content: bytes, *, by_way_of: Path) -> None:
    """Put `content` at `path` so that every reader sees all of it or nothing. One writer at a time uses `by_way_of`."""
    by_way_of.unlink(missing_ok=True)  # of a writer that died
    descriptor = os.open(by_way_of, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    by_way_of.replace(path)


def _user(number: int) -> str:
    if sys.platform == "win32":
        return str(number)
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
