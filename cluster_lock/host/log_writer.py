"""Where log lines go: to a descriptor that somebody reads, or nobody does.

A pipe that is full, or a terminal that was stopped with Ctrl-S, blocks every writer, and an event loop that has a lease
to renew cannot wait for a reader. So nothing here blocks. A line is written at once if there is room. The rest waits
for a thread that waits for room. Lines that are too many are dropped and counted, and a line says so when somebody
reads again.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TextIO

from cluster_lock import clock

from .log_rotation import Rotation, rotation_of

MOST = 1000
"""Lines that wait for a reader."""
PATIENCE = 0.1
"""Seconds that a line may wait for one of those to go, if a reader is only slow. After that it is dropped."""
IMPATIENT = 2.0
"""Seconds in which no line waits, once one waited in vain."""
LAST_WORDS = 1.0
"""Seconds that lines which are not out yet may hold up the end of the process."""

_DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none

_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


class LogWriter(logging.Handler):
    """Writes to the descriptor of `stream`, and never waits for who reads there; to a stream that has none, at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream: TextIO | None = stream
        self._rotation: Rotation | None = None
        try:
            # A copy: the stream's own lock is not for a thread that the end of the interpreter stops anywhere.
            self._descriptor = os.dup(stream.fileno())
        except (OSError, ValueError):  # in memory, as io.StringIO; or closed
            self._descriptor = -1
        else:
            self._descriptor, self._some = _without_waiting(self._descriptor)
            self._rotation = rotation_of(self._descriptor)
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        """Also in a forked child, which has neither the thread nor anything to do with lines of its parent's."""
        self._news = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._patient_from = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - whatever the arguments of the user's own program raise when they are shown
            self.handleError(record)
        else:
            self._say(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be made is told by its place; the standard library prints its arguments, secrets too."""
        kind = getattr(sys.exc_info()[0], "__name__", "an error")
        where = record.name, record.pathname, record.lineno
        self._say(self._note("a line of %s (%s:%d) cannot be written: %s", *where, kind))

    def _note(self, text: str, *arguments: object) -> str:
        about = {"name": "cluster_lock", "levelno": logging.WARNING, "levelname": "WARNING"}
        return self.format(logging.makeLogRecord({**about, "msg": text, "args": arguments}))

    def _say(self, line: str) -> None:
        if self._descriptor >= 0:
            with self._news:
                self._add(f"{line}\n".encode(errors="backslashreplace"))
        elif self._stream is not None and not self._stream.closed:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _add(self, line: bytes) -> None:
        if not self._lines:
            line = self._written(line)
        if not line:
            return
        if len(self._lines) >= MOST and clock.now() >= self._patient_from:
            self._news.wait_for(lambda: len(self._lines) < MOST, PATIENCE)
        if len(self._lines) < MOST and self._runs():
            self._lines.append(line)
            self._news.notify_all()
        else:
            self._dropped += 1
            self._patient_from = clock.now() + IMPATIENT

    def _written(self, line: bytes) -> bytes:
        """Write what there is room for. What is left of the line."""
        try:
            while line and (count := self._some(self._descriptor, line)):
                line = line[count:]
                if self._rotation is not None:
                    self._rotation.wrote(count)
        except OSError:  # nobody reads there any more, or a disk is full: told when that is over
            self._dropped += 1
            return b""
        return line

    def _runs(self) -> bool:
        """There is a thread that waits for room."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait_for_room, name="cluster-lock-log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends, or the machine has no thread left
                self._thread = None
        return self._thread is not None

    def _wait_for_room(self) -> None:
        while True:
            with self._news:
                if not self._lines:
                    self._thread = None
                    return
            _wait_writable(self._descriptor, 1.0)
            with self._news:
                while self._lines and not (left := self._written(self._lines[0])):
                    self._lines.popleft()
                if self._lines:
                    self._lines[0] = left
                elif self._dropped:
                    note = self._note("%d lines of the log were dropped: nobody read them", self._dropped)
                    self._dropped = 0
                    self._lines.append(f"{note}\n".encode(errors="backslashreplace"))
                self._news.notify_all()

    def flush(self) -> None:
        """Wait for what is not out yet, for a second at most. The interpreter does so at its end."""
        with self._news:
            self._news.wait_for(lambda: not self._lines, LAST_WORDS)

    def close(self) -> None:
        self.flush()
        with self._news:
            if self._descriptor >= 0 and self._thread is None:
                os.close(self._descriptor)
                self._descriptor = -1
                self._stream = None
        super().close()


def _without_waiting(descriptor: int) -> tuple[int, Callable[[int, bytes], int]]:
    """A descriptor for what this one writes to, and how to write a part of some bytes to it without waiting: 0 if there
    is no room. O_NONBLOCK belongs to what is open, which others share, so it is set on nothing but an opening of ours.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor, os.write
    if stat.S_ISSOCK(kind) and _DONT_WAIT:
        return descriptor, _send
    if sys.platform == "linux":
        try:
            ours = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # another user's pipe, that root gave us
            return descriptor, _write_if_writable
        os.close(descriptor)
        return ours, _write_ours
    return descriptor, _write_if_writable


def _write_ours(descriptor: int, content: bytes) -> int:
    try:
        return os.write(descriptor, content)
    except BlockingIOError:
        return 0


def _send(descriptor: int, content: bytes) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        try:
            return one.send(content, _DONT_WAIT)
        except BlockingIOError:
            return 0


def _write_if_writable(descriptor: int, content: bytes) -> int:
    """So much as a pipe takes for certain when it takes anything, unless another process was quicker."""
    return os.write(descriptor, content[: getattr(select, "PIPE_BUF", 512)]) if _wait_writable(descriptor, 0) else 0


def _wait_writable(descriptor: int, at_most: float) -> bool:
    if sys.platform == "win32":  # whose select knows sockets only
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(at_most * 1000))


def _after_fork() -> None:
    for writer in list(_writers):
        writer._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
