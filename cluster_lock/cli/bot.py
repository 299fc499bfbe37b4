"""`cluster-lock bot ...`: the commands of `python -m bot` for any Dispatcher."""

from __future__ import annotations

import argparse

from . import start


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bot", help="run an aiogram bot")
    start.add(parser.add_subparsers(metavar="COMMAND", required=True))
