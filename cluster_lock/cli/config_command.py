"""`cluster-lock config`: the effective settings, an example of all of them, their schema."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_settings_options, settings_from
from .output import add_json_option, print_json


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "config",
        help="show the settings",
        description="Show the effective settings; each that is no default with the file and line, the variable or the"
        " option that it came from. Secrets are masked.",
        examples=("", "--example > config.yaml", "--set lock.ttl=10s"),
    )
    parser.add_argument("--example", action="store_true", help="print a config.yaml with every key and its default")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of config.yaml")
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from cluster_lock import config

    if arguments.example:
        print(config.example(), end="")
    elif arguments.schema:
        print(config.schema())
    elif arguments.json:
        settings = settings_from(arguments)
        print_json({"settings": config.shown(settings), "origins": config.origins(settings)})
    else:
        print(config.shown_text(settings_from(arguments)))
    return 0
