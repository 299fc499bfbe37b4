"""Every exception of the library, and the exit code a program should end with when one escapes.

A driver maps every error of its client library to one of these, at the call (`raise ... from`). Nothing above a driver
ever sees a gRPC, aiohttp or operating system error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from .lazy import lazily


class ClusterLockError(Exception):
    """Base of all errors here."""

    exit_code: ClassVar[int] = 1
    """What a program ends with when such an error ends it (sysexits.h, where that has one)."""


class ConfigError(ClusterLockError):
    """The configuration is wrong."""

    exit_code = 78

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        """Every problem that was found, one sentence each."""


class DriverMissing(ConfigError):
    """The client library of a driver is not installed, or is one that cannot work here; the text says what to do."""

    def __init__(self, text: str) -> None:
        super().__init__([text])


class BackendUnavailable(ClusterLockError):
    """No answer that can be trusted: unreachable, too late, cut off, or an error that may pass.

    The request may have been applied all the same: never read this as "not done".
    """

    exit_code = 69


class NoLeaseYet(BackendUnavailable):
    """Too few of several endpoints have answered to know that they are of one cluster, so that nobody leads elsewhere.
    Ask the same driver again: after one ttl at most it no longer waits for the silent ones."""


class StillHeld(BackendUnavailable):
    """Somebody has the lock still, although the store does not show it any more. Nothing was applied."""


class BackendRefused(ClusterLockError):
    """The backend understood and said no; the same request would be refused again (a ttl below its floor)."""

    exit_code = 78


class PermissionRefused(BackendRefused):
    """The backend does not let these credentials do it: token, user, certificate, or the rights of a file."""

    exit_code = 77


class ForeignValue(BackendRefused):
    """Something that is not ours stands under the key. It is named and never overwritten: a person must look."""


class ContractBroken(ClusterLockError):
    """A driver answered, or raised, what its contract does not allow; the text names driver, verb and sentence. It is a
    bug of the driver: nothing is tried again, and nobody leads on such an answer."""


class LeaseExpired(ClusterLockError):
    """The backend says that the lease is gone. All that it held is free, or somebody else's."""


class LockLost(ClusterLockError):
    """The lock can no longer be proved to be held; the work under it has been cancelled. The text says why."""


class HeldElsewhere(ClusterLockError):
    """Somebody else holds the lock and the caller asked not to wait."""

    exit_code = 75


class TokenWentBack(ClusterLockError):
    """The backend granted a fencing token that is not above one already seen: it was restored, rebuilt or replaced.

    Nobody may lead on it. `fencing_floor` in the configuration repairs it, after a person has looked.
    """

    exit_code = 78


class KeeperMismatch(ClusterLockError):
    """A worker and its keeper are not of one version: the package was upgraded under a keeper that runs. What started
    the keeper should start it again."""

    exit_code = 76


class NotStarted(ClusterLockError):
    """The system cannot start another process: it has no room for one (processes, open files, memory)."""

    exit_code = 71


class AlreadyRunning(ClusterLockError):
    """This very instance is already running on this host; the text names its process and its lock file."""

    exit_code = 73


def in_words(error: BaseException) -> str:
    """What somebody else's error says, for people. One about a text that cannot be written has that text in it, which
    may be a password: of that, its reason."""
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        return f"{type(error).__name__}({error.reason!r})"
    return repr(error)


if TYPE_CHECKING:
    ConflictPersists: type[ClusterLockError]
    RequestUnguarded: type[ClusterLockError]
    TelegramTokenRefused: type[ClusterLockError]
else:
    # Telegram's errors stood here once: `from cluster_lock.errors import ConflictPersists` goes on working.
    __getattr__ = lazily(
        __name__, dict.fromkeys(("ConflictPersists", "RequestUnguarded", "TelegramTokenRefused"), ".telegram.errors")
    )
