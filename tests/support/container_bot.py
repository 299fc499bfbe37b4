"""The diary bot in a container, where every process has the same number: the moment of its start tells one from
another, in the name of its diary and in what the simulator is told.

For `start --app support.container_bot:dispatcher`; its diaries are in the folder /diaries.
"""

from __future__ import annotations

import os
import socket

from cluster_lock import clock

from .diary_bot import CLIENT, DIARY, client_name, dispatcher

os.environ[CLIENT] = f"{socket.gethostname()}@{clock.now():.3f}"
os.environ[DIARY] = f"/diaries/{client_name(os.environ[CLIENT], os.getpid())}"

__all__ = ["dispatcher"]
