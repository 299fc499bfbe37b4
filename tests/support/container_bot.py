"""The diary bot where one instance has many lives, and in a container each of them the same number: the moment of its
start tells one from another, in the name of its diary and in what the simulator is told.

For `start --app support.container_bot:dispatcher`; its diaries are in the folder TEST_BOT_DIARIES, or /diaries.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from cluster_lock import clock

from .diary_bot import CLIENT, DIARY, client_name, dispatcher
from .watched import DIARIES

os.environ[CLIENT] = f"{os.environ.get(CLIENT) or socket.gethostname()}@{clock.now():.3f}"
os.environ[DIARY] = str(Path(os.environ.get(DIARIES, "/diaries"), client_name(os.environ[CLIENT], os.getpid())))

__all__ = ["dispatcher"]
