"""stdout and stderr of a command: there whatever the process was started with, without a secret, and no reason to stop
in the middle because nobody reads on (`| head`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cluster_lock.errors import ClusterLockError
from cluster_lock.host.masking import harmless, masked


def open_missing() -> None:
    """Open what of stdin, stdout and stderr the process was started without (`>&-`), to nowhere: the next file that is
    opened would have its number, and what is printed would go into that."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_RDWR)
            os.dup2(found, number)  # which children inherit
            if found != number:
                os.close(found)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


class Speech:
    """A text stream that what is written to leaves masked and harmless, for as long as somebody reads."""

    def __init__(self, stream: TextIO, clean: Callable[[str], str] = harmless) -> None:
        self.stream = stream
        self._clean = clean
        self.unread = False

    def write(self, text: str) -> int:
        self._tell(lambda: self.stream.write(self._clean(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._tell(self.stream.flush)

    def _tell(self, say: Callable[[], object]) -> None:
        try:
            say()
        except OSError as error:
            # What is still in the buffer has to go somewhere, or the interpreter complains at its end.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise ClusterLockError(f"what there is to say cannot be written: {error.strerror}") from error
            self.unread = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def steered() -> TextIO | None:
    """stdout for what draws on a terminal, and writes texts of others without what would steer it."""
    return Speech(sys.stdout.stream, masked) if isinstance(sys.stdout, Speech) else None  # type: ignore[return-value]


@contextmanager
def spoken() -> Iterator[None]:
    """What is printed in the block goes out as `Speech`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = Speech(sys.stdout), Speech(sys.stderr)
    try:
        yield
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def unspoken() -> Iterator[None]:
    """What the user's own program prints in the block is its own."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (getattr(stream, "stream", stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def stop_if_unread() -> None:
    """For what prints for ever: BrokenPipeError when nobody reads on."""
    if getattr(sys.stdout, "unread", False):
        raise BrokenPipeError
