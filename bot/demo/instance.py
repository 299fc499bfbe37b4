"""One instance of the bot as a real process: started, harmed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from cluster_lock import clock
from cluster_lock.testing.servers.children import spawn

from .launch import INSTANCE, Launch
from .status import Status


class Instance:
    """A place for one process after the other, under one name. `client` is the process of now, as the oracle knows it:
    each process by itself, so that two of one instance could not hide behind one name.

    `on_end` is called in the loop with each process's client and exit code (-9 after a SIGKILL).
    """

    def __init__(self, name: str, how: Launch, on_end: Callable[[Instance, str, int], None]) -> None:
        self.name = name
        self.log_path = how.logs / f"{name}.log"
        self.status: Status | None = None
        self.handled_before = 0
        """What its earlier processes handled."""
        self.standby_since: float | None = None
        self.code: int | None = None
        self.frozen = False
        self.downs: list[tuple[float, float | None]] = []
        """When there was no process, or one that was starting; from and until `clock.now()`."""
        self.freezes: list[tuple[float, float | None]] = []
        """When it was stopped."""
        self._how, self._on_end = how, on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()

    @property
    def client(self) -> str:
        return client_name(self.name, self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self.code is None

    @property
    def role(self) -> str:
        """What a person would say about it now."""
        if not self.is_running:
            return "ended" if self.code is not None else "not started"
        if self.frozen:
            return "stopped"
        if self.status is None:
            return "starting"
        return self.status.role if self.status.is_fresh else "silent"

    @property
    def handled(self) -> int:
        return self.handled_before + (self.status.handled if self.status is not None else 0)

    @property
    def deadline(self) -> float:
        """When it stops leading by itself unless its lease is renewed, as it said last; 0 if it does not lead."""
        leads = self.status is not None and self.status.role == "leader"
        return self.status.at + self.status.left if leads and self.status is not None else 0.0

    @property
    def left(self) -> float:
        """Seconds until then."""
        return max(0.0, self.deadline - clock.now())

    def stands_by_since(self, moment: float) -> bool:
        return self.standby_since is not None and self.standby_since <= moment

    def heard(self, status: Status) -> None:
        """A status of this instance's process of now."""
        if self.downs and self.downs[-1][1] is None:
            self.downs[-1] = (self.downs[-1][0], clock.now())
        self.status = status
        if status.role != "standby":
            self.standby_since = None
        elif self.standby_since is None:
            self.standby_since = clock.now()

    async def start(self) -> None:
        """A new process; the log of the one before is continued."""
        self.handled_before = self.handled
        self.status, self.standby_since, self.code, self.frozen = None, None, None, False
        self._ended = asyncio.Event()
        self._process = await asyncio.to_thread(self._spawn)
        watch = threading.Thread(
            target=self._watch, args=(self._process, asyncio.get_running_loop()), name=f"watch-{self.name}", daemon=True
        )
        watch.start()

    async def ended(self, within: float) -> int:
        """Wait until the process has ended: its exit code. TimeoutError if it still runs after `within` seconds."""
        async with asyncio.timeout(within):
            await self._ended.wait()
        assert self.code is not None
        return self.code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def freeze(self) -> None:
        """SIGSTOP, and return when it stands."""
        if sys.platform != "win32":
            self._signal(signal.SIGSTOP)
        if sys.platform == "linux":
            with contextlib.suppress(ChildProcessError):  # it ended before the signal came
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.frozen = True
        self.freezes.append((clock.now(), None))

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        self.freezes[-1] = (self.freezes[-1][0], clock.now())
        if sys.platform != "win32":
            self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 15) -> str:
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            environ = {**self._how.environ, INSTANCE: self.name}
            return spawn(self._how.command, log, environ=environ, folder=self._how.folder)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # which does nothing when the process has ended and was waited for

    def _watch(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        code = process.wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._has_ended, process, code)

    def _has_ended(self, process: subprocess.Popen[bytes], code: int) -> None:
        now = clock.now()
        self.code = code
        self.downs.append((now, None))
        if self.frozen:
            self.freezes[-1] = (self.freezes[-1][0], now)
        self.frozen = False
        self._ended.set()
        self._on_end(self, client_name(self.name, process.pid), code)


def client_name(instance: str, pid: int) -> str:
    return f"{instance}#{pid}"
