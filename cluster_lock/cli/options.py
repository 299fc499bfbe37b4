"""The options that every command with settings has, and the settings they lead to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cluster_lock.errors import ConfigError
from cluster_lock.host.masking import masked_arguments

from .completion import names_a_file

if TYPE_CHECKING:
    from cluster_lock.config import Settings


SEEN = "is a secret, and everybody on this host sees what a command was given (`ps`): "


class Parser(argparse.ArgumentParser):
    """Of whole words only: what is short for an option today may be short for two tomorrow. `examples`: what may
    follow the command's name, one line each."""

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        if sys.version_info >= (3, 14):  # what steers the terminal leaves no command as text, see `streams`
            options.setdefault("color", False)
        super().__init__(**options, allow_abbrev=False)
        self.examples = [f"{self.prog} {example}".rstrip() for example in examples]

    def format_help(self) -> str:
        examples = "".join(f"  {example}\n" for example in self.examples)
        return super().format_help() + (f"\nexamples:\n{examples}" if examples else "")

    def error(self, message: str) -> NoReturn:
        """Without what was given by mistake: `--token=X`."""
        super().error(" ".join(masked_arguments(message.split(" "))))


def add_commands(parser: argparse.ArgumentParser) -> Any:
    """The sub-parsers of `parser`, which without a command prints its help."""

    def helps(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(run=helps)
    return parser.add_subparsers(metavar="COMMAND")


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings")
    names_a_file(
        group.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="the configuration (else CLUSTER_LOCK_CONFIG, else ./config.yaml)",
        )
    )
    group.add_argument(
        "--backend", metavar="NAME", help="where the locks are kept: file, etcd, consul, redis, postgres"
    )
    group.add_argument("--instance", metavar="NAME", help="the name of this process slot")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        dest="assignments",
        metavar="KEY=VALUE",
        help="any other setting, such as --set lock.ttl=10s; may be repeated",
    )


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The effective settings under these options. Raises ConfigError with everything that is wrong."""
    from cluster_lock.config import load
    from cluster_lock.config.secret_settings import instead_of, is_secret

    overrides = dict(arguments.assignments)
    paths = ["etcd.password" if path == "etcd.user" and ":" in value else path for path, value in overrides.items()]
    if secrets := [f"command line: {path}: {SEEN}{instead_of(path)}" for path in paths if is_secret(path)]:
        raise ConfigError(secrets)
    overrides |= {name: value for name in ("backend", "instance") if (value := getattr(arguments, name)) is not None}
    return load(arguments.config, overrides=overrides)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError("must be KEY=VALUE, such as lock.ttl=10s")
    return key.strip(), value
