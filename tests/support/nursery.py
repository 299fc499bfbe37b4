"""Starts Python programs again and again without aiogram's seconds of imports, each as a process of its own.

    with Nursery(folder) as nursery:
        child = nursery.start(["-m", "bot", "start"], environ, log=path, folder=folder)
        child.send_signal(signal.SIGKILL); child.wait(10)

One process imports what takes long and forks. What is forked goes on where `python ARGUMENT...` begins; nothing of an
event loop, a thread or a client library's core exists before.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster_lock import clock

from . import wall_clock
from .aio import PATIENCE

TESTS = Path(__file__).parents[1]
PRELOADED = (
    "aiogram",
    "bot.app",
    "cluster_lock.aiogram.running",
    "cluster_lock.aiogram.start",
    "cluster_lock.cli.start",
    "cluster_lock.config",
    "cluster_lock.election.election",
    "cluster_lock.process",
    "cluster_lock.testing.telegram",
)
"""Neither grpc nor etcd3: their core must not see a fork."""

_CLONE_NEWNET = 0x40000000  # sched.h; os.setns came with Python 3.12
_PR_SET_PDEATHSIG = 1


class Child:
    """Much as subprocess.Popen: `returncode` is None while it runs, -9 after a SIGKILL. `ended_at` is when its end was
    seen (`clock.now()`), `output` what it wrote so far."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.returncode: int | None = None
        self.ended_at: float | None = None
        self._end = threading.Event()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # its end is just being told
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired if it still runs after `timeout` seconds."""
        if not self._end.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        assert self.returncode is not None
        return self.returncode

    def has_ended(self, code: int, at: float) -> None:
        self.returncode, self.ended_at = code, at
        self._end.set()


class Nursery:
    """Leaving the block kills what still runs. `preload`: what all its children load first."""

    def __init__(self, folder: Path, *, preload: Path | None = None) -> None:
        self.preload = preload
        self._children: dict[int, Child] = {}
        self._told = threading.Condition()
        self._ready = False
        self._born: list[Child] = []
        self._logs: list[Path] = []
        self.folder = folder

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from support import nursery; nursery.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
                **({"LD_PRELOAD": str(self.preload)} if self.preload else {}),
            },
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._told:
            if not self._told.wait_for(lambda: self._ready, PATIENCE):
                self.__exit__(None, None, None)
                raise AssertionError(f"the nursery is not ready within {PATIENCE:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()  # it ends them all, and then itself
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._reader.join(20)
            self._process.stdout.close()

    def start(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        log: Path,
        folder: Path | None = None,
        namespace: str | None = None,
    ) -> Child:
        """`python -m MODULE ARGUMENT...` or `python FILE ARGUMENT...` in `folder`, with this whole environment, its
        output appended to `log`, on the host `namespace`."""
        assert self._process.stdin
        request = {
            "arguments": list(arguments),
            "environ": dict(environ),
            "log": str(log),
            "namespace": namespace,
            "folder": str(folder or self.folder),
        }
        with self._told:
            self._logs.append(log)
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            assert self._told.wait_for(lambda: self._born, PATIENCE), "the nursery does not answer"
            return self._born.pop(0)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            with self._told:
                if "code" in said:
                    self._children[said["pid"]].has_ended(said["code"], said["at"])
                elif "pid" in said:  # known here, since the next line may tell of its end
                    child = self._children[said["pid"]] = Child(said["pid"], self._logs.pop(0))
                    self._born.append(child)
                else:
                    self._ready = True
                self._told.notify_all()


# -- the other side ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each line on stdin, tell of its birth and its end on stdout, until the end of stdin."""
    gc.disable()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    alive: set[int] = set()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if wake in ready:
            os.read(wake, 4096)
            _reap(alive)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                break
            pid = os.fork()
            if pid == 0:
                _live(json.loads(line), (wake, waker))
            alive.add(pid)
            print(json.dumps({"pid": pid}), flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    for pid in alive:
        os.waitpid(pid, 0)


def _reap(alive: set[int]) -> None:
    for pid in list(alive):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            alive.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"pid": pid, "code": code, "at": clock.now()}), flush=True)


def _live(request: Mapping[str, Any], ours: Sequence[int]) -> None:
    """What the child does, all of it."""
    code = 1
    try:
        _become(request, ours)
        _run(request["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - what python itself does at the end of a program
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: Sequence[str]) -> None:
    """As `python ARGUMENT...` does."""
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = str(Path(arguments[0]).parent.resolve())
        runpy.run_path(arguments[0], run_name="__main__")


def _become(request: Mapping[str, Any], ours: Sequence[int]) -> None:
    """Everything that a process has from its birth and that is its parent's until now."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in ours:
        os.close(fd)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    if request["namespace"] is not None:
        namespace = os.open(f"/run/netns/{request['namespace']}", os.O_RDONLY)
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {request['namespace']}")
        os.close(namespace)
    os.environ.clear()
    os.environ.update(request["environ"])
    if wall_clock.FILE in os.environ:
        wall_clock.follow(os.environ[wall_clock.FILE])
    os.chdir(request["folder"])
