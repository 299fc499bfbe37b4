"""`bot stop` and `bot status`: the instance of a bot that runs on this host."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from cluster_lock import clock

from .options import add_settings_options, settings_from
from .pages import Unreachable, ask
from .slots import misnamed, not_here, others_here, slots_here

if TYPE_CHECKING:
    from cluster_lock.process import InstanceInfo, InstanceLock

NOT_RUNNING = 3
"""As the Linux Standard Base has it for `status`: not running."""
STILL_RUNNING = 1
LOOK_EVERY = 0.05
HEALTH_WITHIN = 2.0


def add(commands: Any) -> None:
    """Add both commands to an ArgumentParser's sub-parsers."""
    stop: argparse.ArgumentParser = commands.add_parser(
        "stop",
        help="stop the instance that runs here",
        description="Ask the instance that runs on this host to hand over and end, and wait for its end."
        " A successor that stands by is ended too. Exit codes: 0 it has ended, or did not run; 1 it still"
        " runs; 3 nobody has said which instance is meant, that of the host's name does not run, and others do.",
        examples=("", "--instance web-2 --timeout 60"),
    )
    stop.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait (default: 30)")
    add_settings_options(stop)
    stop.set_defaults(run=run_stop)
    status: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="say how the instance here is",
        description="Say whether the instance runs on this host, and how it is. Exit codes: 0 it runs; 1 it runs and"
        " does not work (stuck, failing); 3 it does not run.",
        examples=("", "--json"),
    )
    status.add_argument("--json", action="store_true", help="one object")
    add_settings_options(status)
    status.set_defaults(run=run_status)


def run_stop(arguments: argparse.Namespace) -> int:
    settings = settings_from(arguments)
    successor, lock = slots_here(settings)
    found = [(each, *each.look()) for each in (successor, lock)]
    running = [(each, info) for each, held, info in found if held]
    if not running:
        if which := misnamed(lock, settings):
            print(f"{which}. Nothing was stopped", file=sys.stderr)
            return NOT_RUNNING
        print(not_here(lock, settings))
        return 0
    asked: list[InstanceInfo] = []
    code = 0
    for each, info in running:
        if info is None:
            print(f"{each.title} runs, but {_unsaid(each)}", file=sys.stderr)
            code = STILL_RUNNING
        elif not info.here:
            print(f"{each.title} runs in another container on {info.host}: stop it there", file=sys.stderr)
            code = STILL_RUNNING
        elif info.pid not in [other.pid for other in asked]:  # a successor may take the name between two looks
            with contextlib.suppress(ProcessLookupError):  # it has ended this very moment
                os.kill(info.pid, signal.SIGTERM)
            what = ", which was to take its place," if each is successor else ""
            print(f"asked process {info.pid}{what} to stop", flush=True)
            asked.append(info)
    began, pause = clock.now(), threading.Event()
    while left := [info.pid for info in asked if info.runs()]:
        if clock.now() - began > arguments.timeout:
            for pid in left:
                print(
                    f"process {pid} still runs after {arguments.timeout:g} s; `kill -9 {pid}` ends it at once,"
                    " and the next leader waits for its lease",
                    file=sys.stderr,
                )
            return STILL_RUNNING
        pause.wait(LOOK_EVERY)
    if asked:
        print(f"{'it has' if len(asked) == 1 else 'they have'} ended after {clock.now() - began:.1f} s")
    return code


def run_status(arguments: argparse.Namespace) -> int:
    settings = settings_from(arguments)
    successor, lock = slots_here(settings)
    stands_by, waiting = successor.look()
    runs, info = lock.look()
    found: dict[str, Any] = {"instance": settings.instance, "lock_file": str(lock.path), "status": "not running"}
    if info is not None:
        found |= {"pid": info.pid, "since": info.since, "host": info.host, "health": info.health}
        if not runs:
            found["last"] = "it ended without a word (a crash, kill -9); the next start simply takes its place"
        elif not info.here:
            found["status"] = "in another container"
        else:
            found |= _health(info)
    elif runs:
        found |= {"status": "running", "process": _unsaid(lock)}
    if stands_by and waiting is None:
        found["successor"] = _unsaid(successor)
    elif stands_by and waiting is not None and not (runs and info is not None and info.pid == waiting.pid):
        found |= {"successor": "stands by" if waiting.ready else "starting", "successor_pid": waiting.pid}
    if stands_by and not runs:
        found["status"] = "starting"  # it takes the name as soon as it sees that it is free
    if found["status"] == "not running" and (others := others_here(settings)):
        found["instances"] = others
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            if value is not None:
                print(f"{name.replace('_', ' ')}: {value}")
    return {"not running": NOT_RUNNING, "stuck": 1, "failing": 1}.get(found["status"], 0)


def _unsaid(lock: InstanceLock) -> str:
    return f"its process has not said which it is; {lock.fuser}"


def _health(info: InstanceInfo) -> dict[str, Any]:
    """What its health page says; `stuck` if it says nothing although it has one."""
    if info.health is None:
        return {"status": "running" if info.ready else "starting"}
    try:
        # The address stands in a file that nobody else can write. 503: it works badly, and says so.
        _, told = ask(f"{info.health.rstrip('/')}/health", HEALTH_WITHIN)
    except Unreachable as error:
        return {"status": "stuck", "last_error": f"its health page does not answer: {error}"}
    if not isinstance(told.get("status"), str):
        return {"status": "stuck", "last_error": "its health page does not say how it is"}
    shown = ("status", "role", "leader", "term", "uptime_seconds", "lease_remaining", "last_poll_age", "last_error")
    return {name: told.get(name) for name in shown}
