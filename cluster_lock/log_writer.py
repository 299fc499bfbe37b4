"""Where log lines go: to a descriptor that somebody reads, or nobody does.

A pipe that is full, or a terminal that was stopped with Ctrl-S, blocks whoever writes to it, and O_NONBLOCK would be
seen by all who share it. So a thread writes, and whoever logs waits for it no longer than a moment: an event loop that
has a lease to renew goes on, and lines that nobody reads are dropped, counted, and told of when somebody reads again.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import weakref
from collections import deque
from typing import TextIO

from . import clock

PATIENCE = 0.1
"""Seconds that a line may hold up who logs it. As a rule it takes none of it, and is out when the call returns, so that
the last words of a process are, and the lines of several processes stand in their order."""
IMPATIENT = 2.0
"""Seconds in which nobody waits for a line, once one was waited for in vain."""
LAST_WORDS = 1.0
"""Seconds that lines which are not out yet may hold up the end of the process."""
MOST = 1000
"""Lines that wait for a reader. What comes after them is dropped."""

_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


class LogWriter(logging.Handler):
    """Writes to the descriptor of `stream`, from a thread of its own; to a stream that has none, at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream: TextIO | None = stream
        try:
            # A copy: the thread needs no lock of the stream, which the end of the interpreter waits for.
            self._descriptor = os.dup(stream.fileno())
        except (OSError, ValueError):  # in memory, as io.StringIO; or closed
            self._descriptor = -1
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        """Also in a forked child, which has neither the thread nor anything to do with lines of its parent's."""
        self._news = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._put, self._out, self._dropped = 0, 0, 0
        self._patient_from = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - whatever the arguments of the user's own program raise when they are shown
            self.handleError(record)
        else:
            self.say(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be made is told by its place; the standard library prints its arguments, secrets too."""
        error = sys.exc_info()[0]
        kind = error.__name__ if error is not None else "an error"
        self.say(
            self._note("a line of %s (%s:%d) cannot be written: %s", record.name, record.pathname, record.lineno, kind)
        )

    def say(self, line: str) -> None:
        """Let this line follow those before it."""
        if self._descriptor >= 0:
            self._append(f"{line}\n".encode(errors="backslashreplace"))
        elif self._stream is not None and not self._stream.closed:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _append(self, line: bytes) -> None:
        with self._news:
            if len(self._lines) >= MOST or not self._runs():
                self._dropped += 1
                return
            self._lines.append(line)
            self._put += 1
            self._news.notify_all()
            if clock.now() >= self._patient_from and not self._wait(PATIENCE):
                self._patient_from = clock.now() + IMPATIENT

    def _wait(self, at_most: float) -> bool:
        """Until all is out that was put before."""
        number = self._put
        return self._news.wait_for(lambda: self._out >= number, at_most)

    def _runs(self) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="cluster-lock-log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends, or the machine has no thread left
                self._thread = None
        return self._thread is not None

    def _write(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return os.close(self._descriptor)
                line = self._lines[0]
            is_out = self._written(line)
            with self._news:
                self._lines.popleft()
                self._out += 1
                self._dropped += not is_out
                if is_out and self._dropped and not self._lines:
                    note = self._note("%d lines of the log were dropped: nobody read them", self._dropped)
                    self._lines.append(f"{note}\n".encode(errors="backslashreplace"))
                    self._put += 1
                    self._dropped = 0
                self._news.notify_all()

    def _written(self, line: bytes) -> bool:
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            # Nobody reads there any more, or the disk is full: counted, and told when that is over.
            return error.errno == errno.EBADF
        return True

    def _note(self, text: str, *arguments: object) -> str:
        about = {"name": "cluster_lock", "levelno": logging.WARNING, "levelname": "WARNING"}
        return self.format(logging.makeLogRecord({**about, "msg": text, "args": arguments}))

    def flush(self) -> None:
        """Wait for what is not out yet, for a second at most. The interpreter does so at its end."""
        with self._news:
            self._wait(LAST_WORDS)

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify_all()
        super().close()


def _after_fork() -> None:
    for writer in list(_writers):
        writer._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
