"""What is wrong between us and Telegram. Public as `cluster_lock.aiogram`'s names."""

from __future__ import annotations

from cluster_lock.errors import ClusterLockError


class TelegramTokenRefused(ClusterLockError):
    """Telegram does not accept the bot token (401 or 404). The text names the bot's id, never the token."""

    exit_code = 78


class RequestUnguarded(ClusterLockError):
    """A getUpdates was, or would have been, on a connection that cannot be reset when the lock is lost: an HTTP library
    or a session behaves in an unknown way. Nothing is polled then."""

    exit_code = 78


class ConflictPersists(ClusterLockError):
    """Telegram kept answering 409: somebody polls this bot outside of the lock, and we were told to give up."""
