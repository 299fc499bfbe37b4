"""`python -m bot ...` as a real process: its output so far, signals, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster_lock import clock

from .aio import PATIENCE
from .nursery import Child, Nursery

TESTS = Path(__file__).parents[1]
TOKEN = "4242:a-secret-that-is-never-shown"
SETTINGS = ("CLUSTER_LOCK_", "ETCDCTL_", "CONSUL_", "TELEGRAM_", "POD_NAME")


def environment(state: Path, **more: str) -> dict[str, str]:
    """What a process gets: nothing of the settings of the person who runs the tests. Its state is in `state`."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    tools = {name: value for name, value in os.environ.items() if name == "CLUSTER_LOCK_TOOLS"}
    path = os.pathsep.join(filter(None, (str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "CLUSTER_LOCK_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}
    return {**keep, **tools, **ours, **more}


class BotProcess:
    """Runs in `folder`. Leaving the block kills it if it still runs; the token may be in nothing that it ever printed.

    With a `nursery` it is born there, without seconds of imports. `output`: what it wrote so far to stdout and stderr.
    """

    def __init__(
        self, *arguments: str, folder: Path, environ: Mapping[str, str], nursery: Nursery | None = None
    ) -> None:
        self._secret = environ.get("TELEGRAM_BOT_TOKEN", TOKEN).partition(":")[2]
        self._log = folder / f"{uuid.uuid4().hex}.log"
        self._process: Child | subprocess.Popen[bytes]
        if nursery is not None:
            self._process = nursery.start(["-m", "bot", *arguments], environ, log=self._log, folder=folder)
        else:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "bot", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=dict(environ),
                )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """Until it has printed `text`; AssertionError after `timeout` seconds, or when it ends without."""
        end = clock.now() + timeout
        while True:
            ended = self._process.poll() is not None
            if text in self.output:
                return
            assert not ended, f"it ended without {text!r}:\n{self.output}"
            assert clock.now() < end, f"no {text!r} within {timeout:g} s:\n{self.output}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for its end: its exit code, -9 after a SIGKILL."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {timeout:g} s:\n{self.output}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        assert not self._secret or self._secret not in self.output
        if error is None:
            assert "Traceback" not in self.output, self.output
