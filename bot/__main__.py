"""`python -m bot start` and `python -m bot demo`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cluster_lock import __version__
from cluster_lock.cli import bot_logs, detached, run_line
from cluster_lock.cli import instance as instance_commands
from cluster_lock.cli import start as start_command
from cluster_lock.cli.options import Parser, add_commands

from .demo import command as demo_command

APP = "bot.app:dispatcher"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. A wrong argument ends it with SystemExit(2), as argparse does."""
    return run_line(_parser, argv)


def _parser() -> Parser:
    parser = Parser(prog="python -m bot", description="A Telegram bot on several servers at once.")
    parser.add_argument("--version", action="version", version=f"cluster-lock {__version__}")
    commands = add_commands(parser)
    start_command.add(commands, app=APP)
    detached.add(commands, start_command.add_options, APP)
    instance_commands.add(commands)
    bot_logs.add(commands)
    demo_command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
