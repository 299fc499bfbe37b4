"""The last layer that stops the work: a timer outside of Python that ends this process at the deadline.

On Linux the kernel itself does it: `timer_create(CLOCK_BOOTTIME)` with SIGKILL, at an absolute moment. This works when
nothing in the process works any more: while a long regex holds the GIL, and on a process that was stopped (it is dead
before SIGCONT could wake it). Each confirmed renewal moves the timer on; the end of the work cancels it.

POSIX timers are inherited neither by fork nor by exec (timer_create(2)): a child is not ended by its parent's timer,
and a timer that a child sets is the child's own.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import signal
import sys
import time
from typing import Protocol

from cluster_lock import clock

_TIMER_ABSTIME = 1  # linux/time.h
_SIGEV_SIGNAL = 0  # asm-generic/siginfo.h: to the process, not to a thread
_SIGEVENT_SIZE = 64  # asm-generic/siginfo.h: SIGEV_MAX_SIZE, on every architecture


class DeadlineTimer(Protocol):
    """Ends the process at a moment of `clock.now()`. Not safe for concurrent use: one owner calls it."""

    def set(self, deadline: float) -> None:
        """Arm it, or move it. A moment that is over ends the process now."""
        ...

    def cancel(self) -> None:
        """Disarm it. Idempotent."""
        ...

    def close(self) -> None:
        """Disarm it for good and give back what it holds of the system. Idempotent."""
        ...


class KernelTimer:
    """Linux: the kernel kills the process. Raises OSError where it cannot have such a timer.

    In a forked child `set` arms a new timer of the child's, and the other calls do nothing. As process 1 of a container
    the end is an exit with status 64 instead of a SIGKILL, and a stopped process ends only when it is woken.
    """

    _created_in: int | None = None

    def __init__(self) -> None:
        self._libc = _library()
        self._create()

    def _create(self) -> None:
        event = _SigEvent(signo=_deadly_signal(self._libc), notify=_SIGEV_SIGNAL)
        self._timer = ctypes.c_void_p()
        _check(self._libc.timer_create(_clock_id(), ctypes.byref(event), ctypes.byref(self._timer)))
        self._created_in = os.getpid()

    def set(self, deadline: float) -> None:
        # The id of an inherited timer is free in a forked child, and may by now be the id of somebody else's timer.
        if self._created_in != os.getpid():
            self._create()
        self._settime(max(int(deadline * 1e9), 1))  # 0 would disarm it

    def cancel(self) -> None:
        if self._created_in == os.getpid():
            self._settime(0)

    def close(self) -> None:
        if self._created_in == os.getpid():
            _check(self._libc.timer_delete(self._timer))
        self._created_in = None

    def _settime(self, nanoseconds: int) -> None:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        when = _ITimerSpec(value=_TimeSpec(seconds, rest))
        _check(self._libc.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(when), None))


class FaulthandlerTimer:
    """Elsewhere than on Linux: a thread of the interpreter in C, which needs no GIL, ends the process with status 1.

    It counts on the clock of `threading`, so it is as late as a suspend was long, and it cannot end a stopped process.
    `faulthandler` has only one such timer: a program that uses `dump_traceback_later` itself takes this one away.
    """

    def __init__(self) -> None:
        # Its traceback goes nowhere: a blocking write to a full stderr pipe would keep the process alive for ever.
        self._nowhere: int | None = os.open(os.devnull, os.O_WRONLY)
        self._set_in: int | None = None

    def set(self, deadline: float) -> None:
        # In a forked child faulthandler would wait for a thread that exists in the parent only, for ever.
        if self._set_in not in (None, os.getpid()) or self._nowhere is None:
            return
        self._set_in = os.getpid()
        faulthandler.dump_traceback_later(max(deadline - clock.now(), 0.001), exit=True, file=self._nowhere)

    def cancel(self) -> None:
        if self._set_in == os.getpid():
            faulthandler.cancel_dump_traceback_later()
            self._set_in = None

    def close(self) -> None:
        self.cancel()
        if self._nowhere is not None:
            os.close(self._nowhere)
            self._nowhere = None


def open_timer() -> DeadlineTimer:
    """The best timer that this platform and this sandbox allow."""
    try:
        return KernelTimer()
    except OSError:
        # Not Linux, or a sandbox that does not know the call, or RLIMIT_SIGPENDING is used up.
        return FaulthandlerTimer()


class _SigValue(ctypes.Union):
    _fields_ = (("sival_int", ctypes.c_int), ("sival_ptr", ctypes.c_void_p))


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", _SigValue),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * (_SIGEVENT_SIZE - ctypes.sizeof(_SigValue) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _ITimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


def _library() -> ctypes.PyDLL:
    """The C library that has `timer_create`: glibc before 2.34 keeps it in librt."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "timers on the boot clock exist on Linux only")
    # PyDLL keeps the GIL: the calls never block, and in a busy program it takes a while to get the GIL back.
    for name in (None, "librt.so.1"):
        library = ctypes.PyDLL(name, use_errno=True)
        if hasattr(library, "timer_create"):
            library.timer_create.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
            library.timer_settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
            library.timer_delete.argtypes = [ctypes.c_void_p]
            return library
    raise OSError(errno.ENOSYS, "no timer_create in the C library")


def _clock_id() -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "no CLOCK_BOOTTIME")
    return time.CLOCK_BOOTTIME


def _deadly_signal(libc: ctypes.PyDLL) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "no such signal")
    if os.getpid() != 1:
        return signal.SIGKILL
    # The kernel drops every signal without a handler that process 1 of a pid namespace would get from inside of it,
    # SIGKILL too (seen: a container's only process lived on). A handler in C needs no GIL: `_exit` itself, which takes
    # the signal's number for its status.
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGRTMAX, ctypes.cast(libc._exit, ctypes.c_void_p))
    return signal.SIGRTMAX


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)} (kernel timer)")
