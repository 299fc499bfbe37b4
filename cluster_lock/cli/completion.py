"""`cluster-lock --print-completion bash`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from cluster_lock.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")


def add_completion_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_PrintCompletion,
        metavar="SHELL",
        help="print a completion script for bash, zsh or tcsh, and end",
    )


class _PrintCompletion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            print(script(parser, str(values)))
        except ConfigError as error:
            parser.exit(error.exit_code, f"{error}\n")
        parser.exit(0)


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script. Raises ConfigError if what makes it is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise ConfigError(
            ["completion scripts are made by shtab, which is not installed: pip install shtab"]
        ) from error
    for action in _files:
        action.complete = shtab.FILE  # type: ignore[attr-defined]  # it looks for that attribute
    return str(shtab.complete(parser, shell))


_files: WeakSet[argparse.Action] = WeakSet()


def names_a_file(action: argparse.Action) -> None:
    """The value of this option is a file, which a shell can complete."""
    _files.add(action)
