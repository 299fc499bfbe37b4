"""A small Python program of a test as a real process: started, spoken with, and ended by its own number."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster_lock import clock

from .aio import PATIENCE

CHECKOUT = Path(__file__).parents[2]


class Program:
    """Runs `source` with the checkout on its path. Leaving the block kills it if it still runs.

    `ended_at` (`clock.now()`) is noted by a thread the moment the process is gone, `code` is as subprocess has it: -9
    after a SIGKILL. `output` and `errors` hold what it wrote so far.
    """

    def __init__(
        self,
        source: str,
        *arguments: str,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        stderr: int | None = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.ended_at: float | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-u", "-c", textwrap.dedent(source), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**(os.environ if environ is None else environ), "PYTHONPATH": path},
            pass_fds=pass_fds,
        )
        self.errors = ""
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._wait), threading.Thread(target=self._read)]
        if stderr == subprocess.PIPE:
            self._threads.append(threading.Thread(target=self._read_errors))
        for thread in self._threads:
            thread.start()

    def _wait(self) -> None:
        self.process.wait()
        self.ended_at = clock.now()
        self._ended.set()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.errors += line

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def line(self, timeout: float = 20.0) -> str:
        """The next line that it prints. AssertionError if it ends without one."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no line from the program within {timeout:g} s; stderr: {self.errors}") from None
        assert line is not None, f"the program ended ({self.code}) without a line; stderr: {self.errors}"
        return line

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 20.0) -> int:
        """Wait until it is gone and answer its code."""
        assert self._ended.wait(timeout), f"the program still runs after {timeout:g} s; stderr: {self.errors}"
        for thread in self._threads:
            thread.join(timeout)
        assert self.code is not None
        return self.code

    def rest(self) -> list[str]:
        """The lines that nobody has read yet; call it after `end`."""
        lines: list[Any] = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return [line for line in lines if line is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended.is_set():
            self.process.kill()
            self._ended.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):  # it is gone, and so is what it has not read
                    stream.close()
