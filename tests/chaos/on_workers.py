"""What befalls a worker under its keeper."""

from __future__ import annotations

import contextlib
import signal

from .faults import OnBot
from .kept import send


class WorkerKilled(OnBot):
    """The keeper sees it, releases the lock and starts another one."""

    name = "worker killed"
    kept = True

    async def strike(self) -> None:
        send(self.struck, signal.SIGKILL)


class WorkerStopped(OnBot):
    """SIGSTOP, and SIGCONT if the keeper has left anything to go on."""

    name = "worker stopped"
    kept = True
    stops = True
    lasts = (0.1, 1.2)

    async def strike(self) -> None:
        send(self.struck, signal.SIGSTOP)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            send(self.struck, signal.SIGCONT)


class WorkerAskedToStop(OnBot):
    """By a person who takes it for the bot: its keeper starts another one."""

    name = "worker asked to stop"
    kept = True

    async def strike(self) -> None:
        send(self.struck, signal.SIGTERM)


ALL = (WorkerKilled, WorkerStopped, WorkerAskedToStop)
