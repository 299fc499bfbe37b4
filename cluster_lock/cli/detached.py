"""Bots in the background: `bot start --detach` and `bot restart`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cluster_lock import clock
from cluster_lock.errors import ConfigError
from cluster_lock.host.log_rotation import VARIABLE
from cluster_lock.host.patience import Patience
from cluster_lock.host.private_files import make_private_directory, mapped, open_to_append
from cluster_lock.keeper.again import starting

from .bot_logs import log_of
from .environment import given
from .options import settings_from
from .slots import lock_of, misnamed, not_here, slots_here, slots_of

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.process import InstanceLock

READY_WITHIN = 120.0
"""Seconds for a start: imports, Telegram, the backend."""
END_WITHIN = 30.0
LOOK_EVERY = 0.05
SHOWN = 2000
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a command at a terminal."""


def run_restart(arguments: argparse.Namespace) -> int:
    """`bot restart`: the successor stands by before the one that runs is asked to hand over."""
    if sys.platform == "win32" or arguments.in_process:
        raise ConfigError(["bot restart needs a keeper: stop it and start it instead"])
    settings = settings_from(arguments)
    successor, named = slots_of(settings, lock_of(settings))
    _, running = slots_here(settings)
    runs, old = running.look()
    if runs and old is None:
        print(f"{named.title} runs, but its process has not said which it is: end it first", file=sys.stderr)
        return 1
    if not runs and (which := misnamed(named, settings)):
        raise ConfigError([f"{which}. Nothing was started"])
    if not runs or old is None or not old.here:
        print(f"{not_here(named, settings)}: starting it")
        return start(settings)
    _refuse_to_end_the_container(old.pid)
    began = clock.now()
    with BackgroundBot(settings, named, "--replace") as child:
        code = child.wait(lambda: child.has(successor, ready=True) or child.has(named, ready=True))
        if code is not None:
            return code
        print(f"process {child.pid} stands by after {clock.now() - began:.1f} s; asking process {old.pid} to hand over")
        asked = clock.now()
        child.stays = True
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            if old.runs():
                os.kill(old.pid, signal.SIGTERM)
        code = child.wait(lambda: child.has(named))
    if code is not None:
        return code
    print(f"process {old.pid} has ended after {clock.now() - asked:.1f} s; {child.pid} is {named.title} now")
    return 0


def start(settings: Settings) -> int:
    """Start what this command line says, without its --detach, and come back when it asks for its lock."""
    if sys.platform == "win32":
        raise ConfigError(["--detach: not on Windows, use a service (deploy/windows)"])
    _, named = slots_of(settings, lock_of(settings))
    with BackgroundBot(settings, named) as child:
        print(f"process {child.pid} starts; `bot logs` shows its log, {child.log}", flush=True)
        code = child.wait(lambda: child.has(named))
        if code is None:
            child.stays = True  # `bot status` and `bot stop` know it
            code = child.wait(lambda: child.has(named, ready=True))
    if code is None:
        print(f"process {child.pid} is ready, and runs in the background")
    return code or 0


class BackgroundBot:
    """A bot that this command line starts in the background, from `__enter__` on. Leaving the block ends it, unless it
    `stays`. Until then signals that would end us are only noted, and `wait` heeds them."""

    def __init__(self, settings: Settings, named: InstanceLock, *more: str) -> None:
        """`named`: what it is to hold, after which its log is called: each bot of an instance has its own."""
        self.log = log_of(settings, named.path.stem)
        self.stays = False
        line = [word for word in sys.orig_argv[1:] if word != "--detach"]
        if "restart" in line:  # the first one is the command's own
            line[line.index("restart")] = "start"
        self._command = [sys.executable, *line, *more]
        self._heard: list[int] = []
        self._handlers: dict[int, Any] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    def has(self, lock: InstanceLock, *, ready: bool = False) -> bool:
        """Is it the one that has this name, and says so?"""
        info = lock.info()
        return info is not None and info.pid == self.pid and (info.ready or not ready)

    def wait(self, condition: Callable[[], bool]) -> int | None:
        """Until the condition holds: None. Else the exit code, after saying why: its own if it ends, with its last
        words; 128 + N after signal N to us; 1 if it takes too long."""
        patience, pause = Patience(), threading.Event()
        goes_on = f"process {self.pid} goes on in the background; log: {self.log}"
        while not self._heard:
            if condition():
                return None
            if self._process.poll() is not None:
                code = self._process.returncode
                words = self._last_words() or f"it wrote nothing to {self.log}"
                print(f"{words}\nprocess {self.pid} has ended with {code}", file=sys.stderr)
                return 128 - code if code < 0 else code or 1
            if patience.seconds() > READY_WITHIN:
                what = goes_on if self.stays else f"process {self.pid} is stopped; log: {self.log}"
                print(f"not ready within {READY_WITHIN:g} s: {what}", file=sys.stderr)
                return 1
            pause.wait(LOOK_EVERY)
        print(f"interrupted: {goes_on if self.stays else f'process {self.pid} is stopped'}", file=sys.stderr)
        return 128 + self._heard[0]

    def __enter__(self) -> Self:
        _refuse_below_a_keeper()
        with mapped(self.log):
            for folder in (self.log.parent.parent, self.log.parent):
                make_private_directory(folder)
            if hasattr(os, "statvfs") and not os.statvfs(self.log.parent).f_bavail:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.log))  # it could not say what is wrong
            descriptor = open_to_append(self.log)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, lambda number, _: self._heard.append(number))
        try:
            with starting("another process"), os.fdopen(descriptor, "ab") as output:
                self._began_at = os.fstat(output.fileno()).st_size
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=given() | {VARIABLE: str(self.log)},
                    start_new_session=True,
                )
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.stays and self._process.poll() is None:
                self._end()
        finally:
            self._restore()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its worker goes with it
            self._process.wait()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _last_words(self) -> str:
        """Of this one: others have written to the same file before, and perhaps beside it."""
        with self.log.open("rb") as file:
            file.seek(max(self._began_at, os.fstat(file.fileno()).st_size - SHOWN))
            return file.read().decode(errors="replace").strip()


def add(commands: Any, add_options: Callable[[argparse.ArgumentParser, str | None], None], app: str | None) -> None:
    """Add `restart` to an ArgumentParser's sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "restart",
        help="put a new process in the place of the instance that runs here",
        description="Start a successor in the background, let it stand by, and only then ask the instance that runs"
        " here to hand over to it and end. With the same options as `start`. If the successor cannot start, the one"
        " that runs is left alone.",
        examples=("--app mybot.main:dispatcher" if app is None else "",),
    )
    add_options(parser, app)
    parser.set_defaults(run=run_restart)


def _refuse_to_end_the_container(pid: int) -> None:
    from cluster_lock.process.container import ends_container

    if ends_container(pid):
        why = f"process {pid} is what its container was started for: it would end with it, and so would a successor"
        raise ConfigError([f"{why}. Use `docker compose restart SERVICE` from outside, which hands over too"])


def _refuse_below_a_keeper() -> None:
    if sys.platform == "linux":
        from cluster_lock.keeper.left_over import keeper_above

        if (keeper := keeper_above()) is not None:
            why = f"what runs under keeper {keeper}, as this command does, ends together with it"
            raise ConfigError(
                [f"{why}, and leaves nothing behind: give it from outside (a bot restarts itself by os.execv)"]
            )
