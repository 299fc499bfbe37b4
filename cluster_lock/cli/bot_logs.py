"""`bot logs`: what a bot in the background has written."""

from __future__ import annotations

import argparse
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_settings_options, settings_from
from .slots import slots_here
from .streams import stop_if_unread

if TYPE_CHECKING:
    from cluster_lock.config import Settings

LINES = 50
LOOK_EVERY = 0.5
NO_LOG = 1


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "logs",
        help="show the log of the bot in the background",
        description="Show the end of the log of a bot that was started with --detach, or by `bot restart`. Ends with 1"
        " if there is none.",
        examples=("", "--follow"),
    )
    parser.add_argument("--lines", "-n", type=_lines, default=LINES, metavar="N", help=f"how many (default: {LINES})")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what is written, until Ctrl-C")
    add_settings_options(parser)
    parser.set_defaults(run=run)


def log_of(settings: Settings, stem: str) -> Path:
    """Where a bot in the background writes to. `stem`: of its lock file; each bot of an instance has its own."""
    return settings.state_directory / "logs" / f"{stem}.log"


def run(arguments: argparse.Namespace) -> int:
    settings = settings_from(arguments)
    _, slot = slots_here(settings)
    path = log_of(settings, slot.path.stem)
    if not path.is_file():
        others = sorted(path.parent.glob(f"{slot.path.stem}+*.log"))  # no token is set, and none runs
        path = others[0] if len(others) == 1 else path
    try:
        with path.open("rb") as file:
            for line in deque(file, maxlen=arguments.lines):
                _say(line)
            sys.stdout.flush()
            if arguments.follow:
                _follow(path, file.tell())
    except FileNotFoundError:
        where = "a bot in the foreground writes to stderr: its terminal, `journalctl`, `docker logs`"
        print(f"{slot.title} has no log {path}: only one in the background (--detach) has; {where}", file=sys.stderr)
        return NO_LOG
    return 0


def _follow(path: Path, seen: int) -> None:
    while True:
        _pause()
        with path.open("rb") as file:
            if path.stat().st_size < seen:  # begun anew
                seen = 0
            file.seek(seen)
            for line in file:
                _say(line)
            seen = file.tell()
        sys.stdout.flush()
        stop_if_unread()


def _pause() -> None:
    threading.Event().wait(LOOK_EVERY)


def _say(line: bytes) -> None:
    print(line.decode(errors="replace"), end="")


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError("must be a number of lines")
    return int(text)
