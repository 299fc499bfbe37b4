"""`python -m bot ...` as a real process: its output as it comes, signals, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster_lock import clock

TESTS = Path(__file__).parents[1]
TOKEN = "4242:a-secret-that-is-never-shown"
READY_WITHIN = 60.0
"""For a process from its start: importing aiogram takes seconds of a processor that others may be using."""

SETTINGS = ("CLUSTER_LOCK_", "ETCDCTL_", "CONSUL_", "TELEGRAM_", "POD_NAME")


def environment(state: Path, **more: str) -> dict[str, str]:
    """What a process gets: nothing of the settings of whoever runs the tests. Its state is in `state`."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    tools = {name: value for name, value in os.environ.items() if name == "CLUSTER_LOCK_TOOLS"}
    path = os.pathsep.join(filter(None, (str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "CLUSTER_LOCK_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}
    return {**keep, **tools, **ours, **more}


class BotProcess:
    """Runs in `folder`. Leaving the block kills it if it still runs; the token may be in nothing that it ever printed.

    `output`: what it wrote so far to stdout and stderr. `code`: -9 after a SIGKILL.
    """

    def __init__(self, *arguments: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.output = ""
        self._came = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bot", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=dict(environ),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._came:
                self.output += line
                self._came.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str, timeout: float = READY_WITHIN) -> None:
        """Until it has printed `text`; AssertionError after `timeout` seconds, or when it ends without."""
        end = clock.now() + timeout
        with self._came:
            while text not in self.output:
                assert self._reader.is_alive(), f"it ended without {text!r}:\n{self.output}"
                assert clock.now() < end, f"no {text!r} within {timeout:g} s:\n{self.output}"
                self._came.wait(0.1)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout: float = READY_WITHIN) -> int:
        """Wait for its end: its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {timeout:g} s:\n{self.output}") from None
        self._reader.join(10)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(20)
        self._reader.join(20)
        if self._process.stdout:
            self._process.stdout.close()
        assert TOKEN.partition(":")[2] not in self.output
        if error is None:
            assert "Traceback" not in self.output, self.output
