"""What a command that runs under a keeper finds in its environment, and what else both sides call by name."""

from __future__ import annotations

import os
from collections.abc import Mapping

FD = "CLUSTER_LOCK_FD"
"""The number of the pipe from the keeper: a line of JSON for each change of the lease; its end means that the lock is
lost."""
NAME = "CLUSTER_LOCK_NAME"
"""The lock that it runs under."""
TOKEN = "CLUSTER_LOCK_FENCING_TOKEN"
"""The fencing token of its one term. A worker, which lives for several, has none."""


def under_keeper(environ: Mapping[str, str] = os.environ) -> bool:
    """Was this process started by a keeper that leads for it?"""
    return FD in environ and TOKEN not in environ
