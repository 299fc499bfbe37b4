"""`cluster-lock --print-completion bash`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

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
    for action in _actions(parser):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # it looks for that attribute
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        for below in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from _actions(below)
