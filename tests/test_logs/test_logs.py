"""What is written down: for people, for machines, once, and without a secret."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.health import own_time

from cluster_lock.host.logs import QUIET, configure

TOKEN = "123456789:AAexampleSecretOfABotxxxxxxxxxxxxxx"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, aiogram = logging.getLogger(), logging.getLogger("aiogram")
    before = root.handlers[:], root.level, aiogram.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:], _, _ = before
    root.setLevel(before[1])
    aiogram.setLevel(before[2])
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(stream)]


def test_text_is_one_line_a_record() -> None:
    """A person reads when, how bad, who and what; a traceback is indented below."""
    stream = io.StringIO()
    configure(stream=stream)
    log = logging.getLogger("cluster_lock.election")
    log.info("%s: leading, term %d", "telegram/42", 17, extra={"lock": "telegram/42", "term": 17})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
    first, second, *rest = lines(stream)
    assert first.endswith("INFO    cluster_lock.election: telegram/42: leading, term 17")
    assert second.endswith("ERROR   cluster_lock.election: it failed")
    assert rest[-1] == "    ValueError: no"
    assert all(line.startswith("    ") for line in rest)


def test_nobody_forges_a_line() -> None:
    """A text with line breaks and control characters in it cannot pass for a line of ours, nor move a cursor."""
    stream = io.StringIO()
    configure(stream=stream)
    logging.getLogger("x").error("from outside: %s", "a\n2026-01-01 ERROR   root: forged\r\x1b[2K\u2028b\x85")
    first, second = lines(stream)
    assert first.endswith("from outside: a")
    assert second.startswith("    2026")
    assert "\x1b" not in second
    assert "\r" not in stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    """A machine reads the same, with the fields of a term, whatever is given as extra, and the exception."""
    stream = io.StringIO()
    configure("json", stream=stream)
    log = logging.getLogger("cluster_lock.election")
    fields = {"lock": "telegram/42", "term": 17, "reason": "a\nb", "more": [1, {"x": float("nan")}], "odd": object}
    log.warning("%s: lost", "telegram/42", extra=fields)
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
    first, second = objects(stream)
    assert list(first)[:4] == ["ts", "level", "logger", "message"]
    assert first["ts"].endswith("Z")
    assert (first["level"], first["message"]) == ("WARNING", "telegram/42: lost")
    assert (first["lock"], first["term"], first["reason"]) == ("telegram/42", 17, "a\nb")
    assert first["more"] == [1, {"x": "nan"}]
    assert "ValueError: no" in second["exception"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_secret_is_written(style: Any) -> None:
    """A token, a password and whatever was named is blotted out of messages, fields, exceptions and warnings."""
    stream = io.StringIO()
    quoted = 'pa"ss\\word'
    configure(style, stream=stream, secrets=["plain-secret", quoted])
    log = logging.getLogger("anybody")
    log.error("POST https://api.telegram.org/bot%s/getUpdates", TOKEN)
    log.error("x", extra={"reason": {TOKEN: [f"with {quoted}", TOKEN]}})
    log.error("http://user:pa55word@host/")
    try:
        raise ValueError(f"plain-secret and {TOKEN} and {quoted}")
    except ValueError as error:
        log.exception("failed: %s", error)
    text = stream.getvalue()
    for secret in (TOKEN, TOKEN.partition(":")[2], "pa55word", "plain-secret", "ss\\word", 'pa"ss', 'pa\\"ss'):
        assert secret not in text
    assert text.count("***") >= 6


def test_the_same_warning_is_said_once_a_minute() -> None:
    """What differs only in its seconds is the same; after a minute it says how often it came meanwhile."""
    stream = io.StringIO()
    with own_time() as pass_time:
        configure(stream=stream)
        log = logging.getLogger("cluster_lock.anything")
        for number in range(30):
            log.warning("no answer within %.1f s", number / 3)
            pass_time(1)
        assert len(lines(stream)) == 1
        log.warning("bot 42: another thing")
        log.warning("bot 43: another thing")
        assert len(lines(stream)) == 3
        pass_time(QUIET)
        log.warning("no answer within 4.0 s")
        assert lines(stream)[3].endswith("no answer within 4.0 s (29 times more since it was said last)")


def test_what_matters_is_never_left_out() -> None:
    """Errors, what is about a term, and what the user's program says are written each time."""
    stream = io.StringIO()
    with own_time():
        configure(stream=stream)
        log = logging.getLogger("cluster_lock.election")
        for number in range(5):
            log.error("handler failed for update %d", number)
            log.warning("x: lost after %d s", number, extra={"lock": "x", "term": number})
            log.info("x: leading, term %d", number)
            logging.getLogger("mybot").warning("disk is full")
        assert len(lines(stream)) == 20


def test_memory_of_what_was_said_is_bounded() -> None:
    """A flood of different warnings is not remembered for ever."""
    with own_time():
        configure(stream=io.StringIO())
        log = logging.getLogger("cluster_lock.x")
        for number in range(1000):
            log.warning("bot %d", number)
        (handler,) = logging.getLogger().handlers
        (repeats,) = handler.filters
        assert 100 < len(repeats._said) <= 200  # type: ignore[union-attr]
