"""`cluster-lock bot ...`: the commands of `python -m bot` for any Dispatcher."""

from __future__ import annotations

import argparse
from typing import Any

from . import bot_logs, detached, instance, start
from .options import add_commands


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bot", help="run an aiogram bot", description="Run an aiogram bot on this host, and look after it."
    )
    inner = add_commands(parser)
    start.add(inner)
    detached.add(inner, start.add_options, None)
    instance.add(inner)
    bot_logs.add(inner)
