"""Keeping a program, or one instance of it, from being started twice on a host."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from cluster_lock import clock
from cluster_lock.errors import AlreadyRunning, PermissionRefused
from cluster_lock.host.flock import Flock, is_locked
from cluster_lock.host.masking import masked_arguments
from cluster_lock.host.private_files import make_private_directory, mapped, read_private, write_private
from cluster_lock.host.state_directory import file_name, state_directory

from .main_program import main_program

_LONGEST_NAME = 200
_FOLDER = "instances"
_LOOKS, _LOOK_EVERY = 25, 0.02

logger = logging.getLogger("cluster_lock.process")


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """What the process that holds an instance lock says of itself: for people. Whether there is one, the lock says."""

    pid: int
    since: str
    host: str
    command: str
    namespace: str = ""
    """The pid namespace; a pid of another one (another container's) means nothing here."""
    started: int | None = None
    """When the process began, as the kernel counts it (`process_started`): a number alone may be another one's by
    now."""
    health: str | None = None
    """Where it shows its health."""
    ready: bool = False
    """Could it take over?"""
    boot: str = ""
    """Of which run of which kernel all this is true: a host may be renamed while it runs. Not told by version 0.1, and
    elsewhere than on Linux."""

    def is_sound(self) -> bool:
        """Is each field what it should be? A file may say anything."""
        texts = (self.since, self.host, self.command, self.namespace, self.boot, self.health or "")
        numbers = (self.pid, self.started or 0)
        return (
            all(isinstance(text, str) for text in texts)
            and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            and isinstance(self.ready, bool)
        )

    @property
    def here(self) -> bool:
        """Is it of this host and pid namespace, so that its pid means something to us?"""
        same_host = self.boot == _boot() if self.boot else self.host == socket.gethostname()
        return same_host and self.namespace == _namespace()

    def runs(self) -> bool:
        """Does that very process still run? Only where it is `here`."""
        return process_started(self.pid) is not None and self.started in (None, process_started(self.pid))


class InstanceLock:
    """Holds a name on this host, from `acquire` to `release` or to the end of the process. Without a name: that of the
    program, the resolved path of the file that was started.

        with InstanceLock():
            ...

        lock = InstanceLock("web-1")
        if not lock.acquire():
            sys.exit("it runs already")

    The kernel's file lock decides, and it alone: after a crash the next one simply takes it, and nobody ever has to
    delete a file. The particulars beside it (pid, since when, command) are for the message.
    """

    def __init__(
        self,
        name: str | None = None,
        directory: Path | str | None = None,
        *,
        title: str | None = None,
        stop: str | None = None,
        instead: str = "",
    ) -> None:
        """`directory`: where lock files are kept, by default the state directory. Made if need be, and others must
        not be able to write to it. `title`: what messages call it. `stop`: the command that ends who holds it here, by
        default `kill` and its pid; `instead`: what else there is to do. Raises ValueError for a name that is empty or
        longer than 200 characters, and without one where no file was started (`python -c`)."""
        if name is None:
            name, program = main_program(_LONGEST_NAME)
            title = title or f"the program {program}"
        quoted = file_name(name)
        if not quoted or len(quoted) > _LONGEST_NAME:
            raise ValueError(f"an instance name has 1 to {_LONGEST_NAME} characters, not {name[:50]!r}")
        self.name, self.title = name, title or f"instance {name!r}"
        self._stop, self._instead = stop, instead
        self._root = state_directory() if directory is None else Path(directory)
        self._folder = self._root / _FOLDER
        self.path = self._folder / f"{quoted}.lock"
        self._info = self._folder / f"{quoted}.json"
        self._flock = Flock(self.path)
        self._held_by: int | None = None

    def acquire(self) -> bool:
        """Take the name, and answer True; False if somebody has it, and a warning says who. Otherwise as `take`."""
        try:
            self.take()
        except AlreadyRunning as error:
            logger.warning("%s", error)
            return False
        return True

    def take(self) -> None:
        """Take the name, as `with` does. Raises AlreadyRunning, whose text names the process that has it and says what
        to do; PermissionRefused if the files are another user's or open to others; BackendRefused on a disk without
        locks."""
        if self._held_by == os.getpid():
            raise AlreadyRunning(self._refusal(self.info()))
        with mapped(self.path):
            for folder in (self._root, self._folder):
                make_private_directory(folder)
            self._check_ours()
            if not self._flock.acquire():
                held, info = self.look()
                # Not held after all: somebody only looked, and had it for the moment that a look takes.
                if held or not self._flock.acquire():
                    raise AlreadyRunning(self._refusal(info))
            self._held_by = os.getpid()
            self.say(ready=False)

    def say(self, *, health: str | None = None, ready: bool = True) -> None:
        """Tell others who holds it, where that one shows its `health`, and whether it is `ready`, which it is not from
        `acquire` until this is called. Nothing is told once it is not held any more."""
        if self._held_by != os.getpid():
            return
        text = json.dumps(asdict(_of_this_process(health, ready)), indent=2) + "\n"
        try:
            # First of all what the last one said of itself goes: it is not true any more.
            self._info.unlink(missing_ok=True)
            write_private(self._info, text.encode(), by_way_of=self._info.with_suffix(".new"))
        except OSError as error:
            # The lock is ours all the same; a full disk is no reason not to run.
            logger.warning("cannot write %s, so nobody will be told who runs here: %s", self._info, error)

    def release(self) -> None:
        """Give the name back. Idempotent. In a forked child it does nothing: the name is the parent's."""
        if self._held_by != os.getpid():
            return
        self._held_by = None
        with mapped(self.path):
            try:
                self._info.unlink(missing_ok=True)
            finally:
                self._flock.release()

    def look(self) -> tuple[bool, InstanceInfo | None]:
        """Does anybody hold the name, and what does the holder say of itself? None: it has not said it, for want of
        room on the disk perhaps. If nobody holds it: what one that crashed has left.

        Where that very process does not run, the kernel's lock is asked, in a way that keeps nobody from taking it.
        Raises PermissionRefused if the file is another user's.
        """
        pause = threading.Event()
        for _ in range(_LOOKS):
            info = self.info()
            if info is not None and info.here and info.runs():
                return True, info
            with mapped(self.path):
                if not is_locked(self.path):
                    return False, info
            if info is not None and not info.here:
                return True, info
            pause.wait(_LOOK_EVERY)  # it has begun this very moment, and tells in the next
        return True, None

    @property
    def fuser(self) -> str:
        """How a person finds the holder that has not said which it is."""
        return f"see `fuser {shlex.quote(str(self.path))}`"

    def info(self) -> InstanceInfo | None:
        """What the holder says of itself. Also after a crash, until somebody takes the name: it proves nothing."""
        try:
            raw = read_private(self._info)
            info = None if raw is None else InstanceInfo(**json.loads(raw))
        except (OSError, PermissionRefused, ValueError, TypeError, RecursionError):
            return None  # damaged, or not ours: only a message is poorer for it
        return info if info is not None and info.is_sound() else None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _check_ours(self) -> None:
        """The folder is ours, so only root or we ourselves can have made this, perhaps under another name."""
        if sys.platform == "win32" or not os.path.lexists(self.path):
            return
        found = self.path.lstat()
        if found.st_uid != os.geteuid():
            raise PermissionRefused(
                f"the lock file {self.path} belongs to another user (uid {found.st_uid}), this process runs as uid"
                f" {os.geteuid()}: run it as that user, or let that user's process end and delete the file"
            )
        if found.st_mode & 0o022:
            raise PermissionRefused(f"others may write to the lock file {self.path}: chmod 600 {self.path}")

    def _refusal(self, info: InstanceInfo | None) -> str:
        begin = f"{self.title} is already running on this host"
        if info is None:
            who, stop = "its process has not said which it is", self.fuser
        elif info.here:
            who = f"process {info.pid} ({info.command}), since {info.since}"
            stop = f"`{self._stop or f'kill {info.pid}'}`"
        else:
            who = f"process {info.pid} of another container on {info.host} ({info.command}), since {info.since}"
            stop = "stop that container"
        instead = f", or {self._instead}" if self._instead else ""
        return f"{begin}: {who}; lock file {self.path}. Stop it ({stop}){instead}."


def _of_this_process(health: str | None, ready: bool) -> InstanceInfo:
    return InstanceInfo(
        pid=os.getpid(),
        since=clock.utc_text(),
        host=socket.gethostname(),
        command=shlex.join(masked_arguments(sys.orig_argv)),
        namespace=_namespace(),
        started=process_started(os.getpid()),
        health=health,
        ready=ready,
        boot=_boot(),
    )


def names_held(directory: Path) -> list[str]:
    """The names that somebody holds at this moment, of those that are kept in `directory`."""
    folder = directory / _FOLDER
    with mapped(folder):
        return [unquote(path.stem) for path in sorted(folder.glob("*.lock")) if is_locked(path)]


def process_started(pid: int) -> int | None:
    """When the process with this number began, in ticks since the host's start (proc(5), stat, field 22); None if there
    is none, or it has ended and nobody has collected it. Elsewhere than on Linux 0 for any that runs. Raises OSError if
    the system does not let us look, for want of descriptors."""
    try:
        if sys.platform != "linux":
            os.kill(pid, 0)
            return 0
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except PermissionError:
        return 0 if sys.platform != "linux" else None  # another user's; or hidden
    except (FileNotFoundError, ProcessLookupError, ValueError, OverflowError):
        return None
    return int(fields[18]) if state not in b"ZX" else None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""  # not Linux


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""  # not Linux
