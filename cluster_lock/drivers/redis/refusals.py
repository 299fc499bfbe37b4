"""What the server's errors mean."""

from __future__ import annotations

import re
import ssl
from typing import Any

from cluster_lock.errors import BackendRefused, BackendUnavailable, ClusterLockError, PermissionRefused

from .script import OTHER

_MAY_PASS = ("MISCONF", "OOM", "NOREPLICAS", "LOADING", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "Script killed by user")
"""What an error answer begins with that says nothing of the request: the server takes no writes now, or a person ended
the script."""
_NO_PRIMARY = (OTHER, "UNBLOCKED", "WAIT cannot be used with replica")
"""What one begins with of a server that was the primary when it was asked."""
_NOT_LET_IN = ("NOAUTH", "WRONGPASS", "invalid password")
_MUST_NOT = ("NOPERM", "No permissions", "executing the script can't", "ACL failure in script")
_IN_SCRIPT = re.compile(r" script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.?")
"""Where in a script it happened: of no use to its reader."""


def meaning(errors: Any, error: Exception, where: str, doing: str) -> ClusterLockError:
    """Of one of the exceptions of the client library, which are `errors`."""
    text = _IN_SCRIPT.sub("", str(error)).removeprefix(f"{OTHER} ")
    said = f"{where}: {doing}: {text}"
    if isinstance(error, errors.NoPermissionError) or any(word in text for word in _MUST_NOT):
        return PermissionRefused(f"{said}; what it needs: docs/redis.md#rights")
    if isinstance(error, errors.AuthenticationError) or any(word in text for word in _NOT_LET_IN):
        return PermissionRefused(said)
    passing = OSError, errors.ConnectionError, errors.TimeoutError, errors.OutOfMemoryError
    if isinstance(error, passing) or says_no_primary(errors, error) or text.startswith(_MAY_PASS):
        return BackendUnavailable(said)
    return BackendRefused(said)


def says_no_primary(errors: Any, error: Exception) -> bool:
    """Is another server to be looked for after this answer?"""
    return isinstance(error, errors.ReadOnlyError | errors.MasterDownError) or str(error).startswith(_NO_PRIMARY)


def refuse_untrusted(address: Any, error: Exception) -> None:
    """Who cannot show that it is the server is told nothing, and no other one is asked in its place."""
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        raise BackendRefused(f"{address}: the server's certificate is not trusted: {error.__context__}") from error
