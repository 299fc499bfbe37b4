"""The small init between a keeper and its command: nothing that the command started outlives the keeper, or it.

    python -I -S -c (this text) CONTROL KEEPER_PID FD... [OPTION...] -- COMMAND ARGUMENT...

CONTROL is the reading end of a pipe from the keeper. A line on it is the number of a signal for the command, `until`
and the moment (on the boot clock) at which nothing may be left, or `kill`: end everything. Its end of file means that
the keeper is gone, and ends everything too. The command gets FD... as 3, 4... (a POSIX shell can name no number above
9), and a process group of its own. OPTION is `core=SIZE` for its limit of core dumps, `NAME=VALUE` for a variable of
its environment that we do not have ourselves, `without=NAME` for one that it shall not have, `process=NAME` for one
that says its own number after a colon, or `no-new-privileges`.

The exit status is the command's, or 128 + the number of the signal that ended it; it comes only when nothing is left.

Two processes do this, one under the other (PR_SET_CHILD_SUBREAPER makes each the parent of what is orphaned below it),
because PR_SET_PDEATHSIG reaches a direct child only: if the keeper and one of the two are killed at once, the other one
still hears of it and kills what is left. If the two are killed, the keeper does (`sweep`). None of the three kills the
one below while that does the same work: killed at that moment, it would leave the rest to nobody. If they are stopped,
and hear nothing, the death of the parent wakes them. Elsewhere than on Linux there is the process group, and what
leaves it is not found.

No signal ends the two that can be ignored, so a stop signal to every process of a service leaves the command its time.
Nor do they stand in lists of processes under a name that a pattern for this library, for Python or for the command
finds: anybody who kills by name kills the keeper, and they end the rest.

No import of the library here: this starts in milliseconds and stays as small as an interpreter can be.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 15, 36, 38  # linux/prctl.h
LINUX = sys.platform == "linux"
CANNOT_RUN = 127
NOT_STARTED = 71
FIRST_FD = 3
PAUSE = 0.002
"""Between two looks at what does not end: a process in a system call that cannot be interrupted."""
LEAVE = 0.05
"""Seconds in which an init that hears that the one above it is gone ends everything; it takes milliseconds."""
BEFORE = 0.2
"""Seconds before `until` at which everything is ended."""
LOOK_EVERY = 0.25
"""Seconds that a wait for `until` takes at most: waits do not count the sleep of a host."""
COPIES = 1.0
"""A signal that came to us came to the command too, by itself: within so many seconds the keeper's is a copy of it."""
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
HEEDED = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, *FAULTS})
PYTHONS_OWN = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Ignored by an interpreter, and not by its parent."""
NO_NEW_PRIVILEGES = "no-new-privileges"
CORE = "core="
PROCESS = "process="
WITHOUT = "without="


def become_subreaper() -> None:
    """Be the parent of whatever is orphaned below this process."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def sweep(
    spared: Callable[[], Collection[int]] = set,
    limit: float = float("inf"),
    leave: float = 0.0,
    command: int | None = None,
) -> bool:
    """Kill every descendant, and come back when none is left. Those that are born meanwhile too. False if some are
    after `limit` seconds. `spared()`: these are not killed, nor what is below them, and not waited for. `leave`:
    seconds in which an init below is to do it. `command`: its status is left in `statuses`."""
    began = _now()
    while reap(command) is not None:  # looked at first: mostly there is none, and a look at /proc takes milliseconds
        spare, passed = spared(), _now() - began
        try:
            found, seen = list(descendants(spare)), True
        except OSError:
            found, seen = [], False  # no descriptor for the look at them: looked at again
        if spare and seen and not found:
            return True
        if passed > limit:
            return False
        if passed >= leave:
            for pid in reversed(found):  # an init after all that is below it
                _kill(pid, signal.SIGKILL)
        select.select([], [], [], PAUSE)
    return True


def reap(command: int | None = None) -> int | None:
    """Collect the children that have ended; None when there is no child any more. The status of `command` is left in
    `statuses`."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return 0
        if pid == command:
            statuses[pid] = os.waitstatus_to_exitcode(status)


statuses: dict[int, int] = {}


def descendants(spared: Collection[int] = ()) -> Iterator[int]:
    """The processes below this one, children first, but not `spared` and what is below them. Zombies too: a process
    whose first thread has ended looks like one, and lives. What is one is collected by its parent, or by us when that
    is killed."""
    if not LINUX:
        return
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in spared and (above := parent(name)) is not None:
            below.setdefault(above, []).append(int(name))
    found = below.get(os.getpid(), [])
    while found:
        yield from found
        found = [pid for parent in found for pid in below.get(parent, [])]


def parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in brackets and may hold anything.
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None  # it ended meanwhile


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # gone, or another user's by a setuid program, which only root could end


def wake_at_the_end_of(parent: int) -> None:
    """Have the kernel continue this process, if it is stopped, when its parent dies. If that is dead, end."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
    if os.getppid() != parent:
        os._exit(CANNOT_RUN)


def rename(name: str) -> None:
    """Stand under another name in lists of processes."""
    if not LINUX:
        return
    _prctl(PR_SET_NAME, name.split()[0].encode())
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # proc_pid_stat(5): arg_start, arg_end
    if start < end:
        # The kernel takes what stands there up to the first 0 for the whole, if the last byte is none.
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, name.encode(), min(len(name), end - start - 2))
        ctypes.memset(end - 1, 1, 1)


def ignore() -> list[int]:
    """Be ended by no signal that can be ignored; those that would have had an effect, and shall on the command."""
    able = sorted(map(int, signal.valid_signals() - HEEDED))
    effective = [number for number in able if signal.getsignal(number) != signal.SIG_IGN or number in PYTHONS_OWN]
    for number in effective:
        signal.signal(number, signal.SIG_IGN)
    return effective


came: dict[int, float] = {}
"""When a signal came to us ourselves, by its number."""


def _note(number: int, _: object) -> None:
    came[number] = _now()


def _now() -> float:
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _prctl(option: int, value: int | bytes) -> None:
    if LINUX and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _start(command: list[str], fds: list[int], close: list[int], options: list[str], signals: Sequence[int]) -> int:
    """The command itself, on which `signals` have their effect; it dies with its parent, which is us."""
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none is lost between the fork and the end of our ways
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        if os.getppid() != parent:
            os._exit(CANNOT_RUN)
        # Out of the way first: one may have the number that another one is to get.
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
        for fd in (*close, *fds):
            os.close(fd)
        for number, fd in enumerate(moved, FIRST_FD):
            os.dup2(fd, number)
        for option in options:
            if option == NO_NEW_PRIVILEGES:
                _prctl(PR_SET_NO_NEW_PRIVS, 1)
            elif option.startswith(CORE):
                _, most = resource.getrlimit(resource.RLIMIT_CORE)
                resource.setrlimit(resource.RLIMIT_CORE, (int(option.removeprefix(CORE)), most))
            elif option.startswith(PROCESS):
                name = option.removeprefix(PROCESS)
                os.environ[name] = f"{os.environ[name]}:{os.getpid()}"
            elif option.startswith(WITHOUT):
                os.environ.pop(option.removeprefix(WITHOUT), None)
            else:
                name, _, value = option.partition("=")
                os.environ[name] = value
        for number in (signal.SIGCHLD, *signals):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cluster-lock: cannot run {command[0]}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(CANNOT_RUN)


def _stand_over(child: int, control: int, *, listens: bool) -> int:
    """Until `child` has ended and nothing below is left: its exit status.

    `listens`: to the lines on `control`; the other one of the two waits for its end of file only.
    """
    bell, ring = os.pipe()
    for fd in (bell, ring):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(ring)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = select.poll()
    waiting.register(bell, select.POLLIN)
    waiting.register(control, select.POLLIN if listens else 0)  # a hang-up is told in any case
    heard = b""
    until = float("inf")
    while True:
        if reap(child) is None or child in statuses:
            sweep()
            return statuses.get(child, -signal.SIGKILL)
        left = until - BEFORE - _now()
        ready = dict(waiting.poll(None if until == float("inf") else 1000 * min(max(left, 0), LOOK_EVERY)))
        if bell in ready:
            os.read(bell, 4096)
        over = False
        if control in ready:
            said = os.read(control, 4096) if ready[control] & select.POLLIN else b""
            *lines, heard = (heard + said).split(b"\n")
            over = not said or b"kill" in lines
            until = _heed(lines, child, until)
        if over or _now() >= until - BEFORE:
            if listens and not LINUX:
                _kill_group(child)
            sweep(leave=0.0 if listens else LEAVE, command=child)
            return statuses.get(child, -signal.SIGKILL)


def _heed(lines: list[bytes], child: int, until: float) -> float:
    """Send the signals that the lines say; the last `until` in them, or the one before."""
    for line in lines:
        if line.isdigit() and _now() - came.get(int(line), float("-inf")) >= COPIES:
            _kill(child, int(line))
        elif line.startswith(b"until "):
            until = float(line.removeprefix(b"until "))
    return until


def _kill_group(child: int) -> None:
    """It and its group: all that can be found elsewhere than on Linux."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _kill(child, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    control, keeper = int(arguments[0]), int(arguments[1])
    end = arguments.index("--")
    told, command = arguments[2:end], arguments[end + 1 :]
    fds, options = [int(word) for word in told if word.isdigit()], [word for word in told if not word.isdigit()]
    signals = ignore()
    rename(f"init of process {keeper}")
    become_subreaper()
    wake_at_the_end_of(keeper)
    upper, child = os.getpid(), os.fork()
    if is_lower := child == 0:
        wake_at_the_end_of(upper)
        become_subreaper()
        for number in signals:
            signal.signal(number, _note)
        child = _start(command, fds, [control], options, signals)
    for fd in fds:
        os.close(fd)
    return _stand_over(child, control, listens=is_lower)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except OSError as error:  # what runs already is ended by the one above
        os.write(2, f"cluster-lock: cannot start another process: {error.strerror}\n".encode(errors="replace"))
        code = NOT_STARTED
    os._exit(code if code >= 0 else 128 - code)
