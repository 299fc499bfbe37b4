"""What a failed getUpdates means. aiogram's exceptions are by HTTP status; what to do about one needs more than
that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiogram.exceptions import (
    TelegramConflictError,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)

from cluster_lock.host.masking import shortened


class Kind(StrEnum):
    CONFLICT = "conflict"
    """Another getUpdates took the place of ours: somebody polls this bot outside of the lock."""
    WEBHOOK = "webhook"
    """A webhook is set, and Telegram answers no getUpdates while it is."""
    FLOOD = "flood"
    TOKEN = "token"
    """Telegram does not know the token. It is bad on every server alike."""
    NETWORK = "network"
    """No answer: the only kind that another server may not have."""
    SERVER = "server"
    """An answer that cannot be used."""


@dataclass(frozen=True, slots=True)
class Failure:
    kind: Kind
    text: str
    """For people, one line, without the token."""
    retry_after: float = 0.0


WEBHOOK_TEXTS = "webhook is active", "terminated by setWebhook"  # Client.cpp:15701 and 15779
LONGEST_TEXT = 200
LONGEST_PAUSE = 3600
"""Seconds. Telegram asks for less, and what asks for a year must not keep a leader from polling."""


def classify(error: Exception, token: str) -> Failure:
    """Tell apart what went wrong with a getUpdates."""
    text = describe(error, token)
    match error:
        case TelegramConflictError() if any(words in error.message for words in WEBHOOK_TEXTS):
            return Failure(Kind.WEBHOOK, text)
        case TelegramConflictError():
            return Failure(Kind.CONFLICT, text)
        case TelegramRetryAfter():
            return Failure(Kind.FLOOD, text, float(min(max(error.retry_after, 0), LONGEST_PAUSE)))
        case TelegramUnauthorizedError() | TelegramNotFound():
            return Failure(Kind.TOKEN, text)
        case TelegramNetworkError() | OSError():  # TimeoutError is an OSError
            return Failure(Kind.NETWORK, text)
        case _:
            # Besides what Telegram calls an error: a proxy's HTML page (ClientDecodeError, which is no
            # TelegramAPIError), a 5xx without a description (TypeError out of aiogram's base.py), a session
            # middleware of the user's.
            return Failure(Kind.SERVER, text)


def describe(error: BaseException, token: str) -> str:
    """One line of an exception that may hold a whole page, or an URL with the token in it."""
    text = " ".join(str(error).replace(token, "<token>").split()) or "no more is known"
    return f"{type(error).__name__}: {shortened(text, LONGEST_TEXT)}"
