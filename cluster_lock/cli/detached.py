"""Bots in the background: `bot start --detach` and `bot restart`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster_lock import clock
from cluster_lock.errors import ConfigError

from .options import settings_from

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.process import InstanceInfo

READY_WITHIN = 120.0
"""Seconds for a start: imports, Telegram, the backend."""
LOOK_EVERY = 0.05
SHOWN = 2000


def run_restart(arguments: argparse.Namespace) -> int:
    """`bot restart`: the successor stands by before the one that runs is asked to hand over."""
    if sys.platform == "win32" or arguments.in_process:
        raise ConfigError(["bot restart needs a keeper: stop it and start it instead"])
    from cluster_lock.keeper.names import successor_of
    from cluster_lock.process import InstanceLock

    settings = settings_from(arguments)
    settings.bot_token()
    old = InstanceLock(settings.instance, settings.state_directory).info()
    if old is None or not old.here or not old.runs():
        print(f"instance {settings.instance} does not run here: starting it")
        return start(settings)
    began = clock.now()
    child, log = _spawn(settings, "--replace")
    successor = InstanceLock(successor_of(settings.instance), settings.state_directory)
    named = InstanceLock(settings.instance, settings.state_directory)
    if not _wait(child, log, lambda: _is(successor.info(), child.pid, ready=True) or _is(named.info(), child.pid)):
        return child.returncode or 1
    print(f"process {child.pid} stands by after {clock.now() - began:.1f} s; asking process {old.pid} to hand over")
    asked = clock.now()
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        if old.runs():
            os.kill(old.pid, signal.SIGTERM)
    if not _wait(child, log, lambda: _is(named.info(), child.pid)):
        return child.returncode or 1
    print(f"process {old.pid} has ended after {clock.now() - asked:.1f} s; {child.pid} is {settings.instance} now")
    return 0


def start(settings: Settings) -> int:
    """Start what this command line says, without its --detach, and come back when it runs."""
    from cluster_lock.process import InstanceLock

    if sys.platform == "win32":
        raise ConfigError(["--detach: not on Windows, use a service (deploy/windows)"])
    child, log = _spawn(settings)
    named = InstanceLock(settings.instance, settings.state_directory)
    if not _wait(child, log, lambda: _is(named.info(), child.pid)):
        return child.returncode or 1
    print(f"process {child.pid} runs in the background; log: {log}")
    return 0


def _spawn(settings: Settings, *more: str) -> tuple[subprocess.Popen[bytes], Path]:
    folder = settings.state_directory / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / f"{settings.instance.replace(os.sep, '_')}.log"
    line = [word for word in sys.orig_argv[1:] if word != "--detach"]
    if "restart" in line:  # the first one is the command's own
        line[line.index("restart")] = "start"
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            [sys.executable, *line, *more],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return child, log


def _wait(child: subprocess.Popen[bytes], log: Path, condition: Callable[[], bool]) -> bool:
    """Wait for the condition. False, with the end of the log shown, if the child ends first or takes too long."""
    began, pause = clock.now(), threading.Event()
    while not condition():
        if child.poll() is not None:
            print(log.read_text(errors="replace")[-SHOWN:], file=sys.stderr)
            return False
        if clock.now() - began > READY_WITHIN:
            child.terminate()
            print(f"it was not ready within {READY_WITHIN:g} s and was stopped; log: {log}", file=sys.stderr)
            return False
        pause.wait(LOOK_EVERY)
    return True


def _is(info: InstanceInfo | None, pid: int, *, ready: bool = False) -> bool:
    return info is not None and info.pid == pid and (info.ready or not ready)


def add(commands: Any, add_options: Callable[[argparse.ArgumentParser, str | None], None], app: str | None) -> None:
    """Add `restart` to an ArgumentParser's sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "restart",
        help="put a new process in the place of the instance that runs here",
        description="Start a successor in the background, let it stand by, and only then ask the instance that runs"
        " here to hand over to it and end. With the same options as `start`. If the successor cannot start, the one"
        " that runs is left alone.",
    )
    add_options(parser, app)
    parser.set_defaults(run=run_restart)
