"""How our commands log: text for people, or JSON for machines. Programs that use the library configure logging
themselves.

Secrets are blotted out of every line, also out of an error that nobody caught. A warning of ours is written once a
minute at most.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from cluster_lock import clock
from cluster_lock.errors import ClusterLockError

from .log_writer import LogWriter
from .masking import STEERING, harmless, keep_secret, masked

log = logging.getLogger("cluster_lock")

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
QUIET = 60.0
"""Seconds in which a warning is said once."""
REMEMBERED = 200
OURS = frozenset({"cluster_lock", "aiogram", "aiohttp", "asyncio", "grpc"})
"""Whose warnings may be left out."""

_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECONDS = re.compile(r"(?<![0-9])[0-9]+(?:\.[0-9]+)? s\b")
_TRANSITION = "term"
"""The field of a line about a term: each is a line of its own, however much it looks like another one."""


def configure(
    style: Literal["text", "json"] = "text",
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Let everything that is logged go to `stream` (stderr), and nowhere else. `secrets`: more texts that never show.
    Nobody waits for a reader of it: see `log_writer`.

    What nobody catches is logged too: the interpreter would print it with the address of a request, and the token in
    that. It ends the process, or the thread, as it always does.
    """
    keep_secret(*secrets)
    stream = stream or sys.stderr
    # None: the process was started without one.
    handler: logging.Handler = LogWriter(stream) if stream is not None else logging.NullHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, LogWriter):
            old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("aiogram").setLevel(max(level, logging.WARNING))
    sys.excepthook = _say_uncaught
    threading.excepthook = _say_uncaught_in_thread
    sys.unraisablehook = _say_unraisable


def say_last(text: str) -> None:
    """Why the process ends, as a sentence: a line of the log where machines read that, else on stderr as it is."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        log.critical("%s", text)
    elif sys.stderr is not None:
        with suppress(OSError, ClusterLockError):  # a full disk: the exit code says it too
            sys.stderr.write(f"{harmless(text)}\n")


def _say_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        if sys.stderr is not None:
            sys.stderr.write(harmless("".join(traceback.format_exception(kind, error, trace))))
    else:
        log.critical("nobody caught this, the process ends", exc_info=(kind, error, trace))


def _say_uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    if not issubclass(uncaught.exc_type, SystemExit):  # which ends a thread without a word
        name = uncaught.thread.name if uncaught.thread is not None else "?"
        log.critical("nobody caught this, thread %s ends", name, exc_info=uncaught.exc_value)


def _say_unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """Of a finalizer or a callback of C code, which have nobody to raise it to."""
    log.error("%s %r", ignored.err_msg or "ignored an error in", ignored.object, exc_info=ignored.exc_value)


class TextFormatter(logging.Formatter):
    """One line for people; what is longer (a traceback) is indented below it, so that no text can pass for a line."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        text = masked(super().format(record))
        text = STEERING.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))
        return text.rstrip("\n").replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One object a line: ts (UTC), level, logger, message, what was given as `extra` (lock, term, reason), and
    exception."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in record.__dict__.items() if name not in _USUAL},
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = self.formatStack(record.stack_info)
        return json.dumps(self._clean(content), ensure_ascii=False)

    def _clean(self, value: Any) -> Any:
        """Before it is written: a secret with a quote in it looks different in JSON."""
        if isinstance(value, dict):
            return {masked(str(key)): self._clean(below) for key, below in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(below) for below in value]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)  # JSON has neither inf nor nan
        return masked(str(value))


class Repeats(logging.Filter):
    """Lets a warning of ours, or of a library that we drive, pass once a minute, and then says how often it came.

    Two warnings that differ only in seconds are one. Errors, lines about a term, and lines of the user's own program
    always pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.name.partition(".")[0] in OURS
        if record.levelno != logging.WARNING or hasattr(record, _TRANSITION) or not is_ours:
            return True
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit: the handler says so
            return True
        now, key = clock.now(), (record.name, _SECONDS.sub("# s", text))
        said, more = self._said.pop(key, (float("-inf"), 0))
        if now - said < QUIET:
            self._said[key] = said, more + 1
            return False
        if more:
            record.msg, record.args = f"{text} ({more} times more since it was said last)", None
        self._said[key] = now, 0
        while len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        return True
