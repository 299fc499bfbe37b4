"""What a server says as JSON over HTTP, whatever it is: in bounded time, and an object or a sentence."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future
from typing import Any, TypeAlias

from cluster_lock.host.masking import masked, shortened

LARGEST = 1_000_000
_LONGEST_WORDS = 300

Answer: TypeAlias = tuple[int, dict[str, Any]]
"""Status and object."""


class Unreachable(Exception):
    """There is no answer that means anything; the text says why, without a secret."""


def ask(url: str, within: float, secret: str = "") -> Answer:
    """GET `url`, in so many seconds for the whole of it. Raises Unreachable; without a proxy of the environment, which
    a bot would not use either, and to no other place than `url`. `secret`: is in the address."""
    answer: Future[Answer] = Future()
    # A limit for each read is none for all of them, and a look-up of a name has none: the thread ends with the process.
    threading.Thread(target=_into, args=(answer, url, within, secret), daemon=True).start()
    try:
        return answer.result(within)
    except TimeoutError:
        raise Unreachable(f"no whole answer within {within:g} s") from None


def words(value: object) -> str:
    """What a server says of something, on one line and not too long."""
    return " ".join(shortened(value, _LONGEST_WORDS).split()) if isinstance(value, str) else ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _into(answer: Future[Answer], url: str, within: float, secret: str) -> None:
    try:
        answer.set_result(_asked(url, within, secret))
    except Exception as error:  # noqa: BLE001 - the waiting thread gets it
        answer.set_exception(error)


def _asked(url: str, within: float, secret: str) -> Answer:
    try:
        status, body = _read(url, within)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an address that is none
        raise Unreachable(masked(str(getattr(error, "reason", error)), [secret] if secret else [])) from None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreachable(f"it answered {status} with what is no JSON") from None
    if not isinstance(content, dict):
        raise Unreachable(f"it answered {status} with what is no object")
    return status, content


def _read(url: str, within: float) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(url, timeout=within) as answer:
            return answer.status, answer.read(LARGEST)
    except urllib.error.HTTPError as error:  # says what is wrong
        with error:
            return error.code, error.read(LARGEST)
