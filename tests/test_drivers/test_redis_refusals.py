"""Which of Redis's error answers pass, and which say no for good. The texts are those of Redis 7.0 and 8.0."""

from __future__ import annotations

import pytest
from redis import exceptions

from cluster_lock.drivers.redis.refusals import meaning
from cluster_lock.errors import BackendRefused, BackendUnavailable, PermissionRefused


@pytest.mark.parametrize(
    "text",
    [
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured",
        "Script killed by user with SCRIPT KILL. script: 0123456789abcdef0123456789abcdef01234567, on @user_script:4.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
def test_trouble_that_passes(text: str) -> None:
    """It says nothing of the request, which is made again."""
    assert type(meaning(exceptions, exceptions.ResponseError(text), "redis", "acquire")) is BackendUnavailable


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("wrong number of arguments for 'get' command", BackendRefused),
        ("NOPERM this user has no permissions to run the 'wait' command", PermissionRefused),
        ("WRONGPASS invalid username-password pair or user is disabled.", PermissionRefused),
    ],
)
def test_a_refusal(text: str, kind: type[BackendRefused]) -> None:
    """What only a person can mend ends who asks."""
    assert type(meaning(exceptions, exceptions.ResponseError(text), "redis", "acquire")) is kind
