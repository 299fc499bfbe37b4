"""Whether others could put another folder in the place of ours: they can where they may write to one above it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from cluster_lock.errors import PermissionRefused


def check_way_to(path: Path) -> None:
    """Raise PermissionRefused unless every folder above `path` that is there is root's or ours, and only root and we
    may rename what is in it; by the path as it is written, and by where its links lead."""
    if sys.platform == "win32":
        return
    for folder in dict.fromkeys((*path.absolute().parents, *path.resolve().parents)):
        try:
            found = folder.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # the caller makes it, or says that it cannot be made
        if found.st_uid not in (0, os.geteuid()):
            raise PermissionRefused(
                f"{path} cannot be trusted: {folder} above it belongs to user {user_name(found.st_uid)}, who could put"
                f" another one in its place (this process runs as {user_name(os.geteuid())}): choose another directory"
            )
        if _others_may_rename(folder, found):
            raise PermissionRefused(
                f"{path} cannot be trusted: others may write to {folder} above it, and could put another one in its"
                f" place: chmod go-w {folder}, or choose another directory"
            )


def check_found(path: Path) -> None:
    """Raise PermissionRefused unless only root, we, and whose folder it is could have put the file there: it and its
    folder, by the path as it is written and by where a link leads, belong to one of these, and nobody else may write to
    them, sticky or not. In a container the folder is often somebody's of the host, and we were started in it."""
    if sys.platform == "win32":
        return
    whole, led_to = path.absolute(), path.resolve()
    trusted = (0, os.geteuid(), whole.parent.lstat().st_uid)
    for place in dict.fromkeys((whole.parent, whole, led_to.parent, led_to)):
        found = place.lstat()
        if found.st_uid not in trusted:
            raise PermissionRefused(
                f"{whole} cannot be trusted: {place} belongs to user {user_name(found.st_uid)} (this process runs as"
                f" {user_name(os.geteuid())}): start in another directory, or chown it"
            )
        if _others_may_write(found):
            raise PermissionRefused(
                f"{whole} cannot be trusted: others may write to {place}: start in another directory, or"
                f" chmod go-w {place}"
            )


def _others_may_rename(folder: Path, found: os.stat_result) -> bool:
    """Not where the sticky bit leaves that to owners, nor in a volume that was given to a group of ours."""
    return _others_may_write(found) and not found.st_mode & stat.S_ISVTX and not _is_our_volume(folder, found)


def _is_our_volume(folder: Path, found: os.stat_result) -> bool:
    """Kubernetes makes the root of an emptyDir writable for all, and nobody in the container can change that. With an
    `fsGroup` it is root's, with that group, one of ours, and the setgid bit; elsewhere a mount that all may write to,
    such as a disk of many users, looks otherwise."""
    if sys.platform == "win32" or not found.st_mode & stat.S_ISGID or not os.path.ismount(folder):
        return False
    return found.st_uid == 0 and found.st_gid in (os.getegid(), *os.getgroups())


def _others_may_write(found: os.stat_result) -> bool:
    if stat.S_ISLNK(found.st_mode):  # has a mode that says nothing
        return False
    return bool(found.st_mode & stat.S_IWOTH) or bool(found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid))


def _is_own_group(number: int) -> bool:
    """A group of root's, or of this user alone, which many systems make, and whose umask is 002 then."""
    if sys.platform == "win32":
        return False
    import grp
    import pwd

    if number == 0:
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return user.pw_gid == number and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def user_name(number: int) -> str:
    if sys.platform == "win32":
        return str(number)
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
