"""`cluster-lock run -- COMMAND...`: any program, only while the lock is held."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NoReturn

from cluster_lock.errors import ConfigError
from cluster_lock.host import logs
from cluster_lock.host.masking import kept_secrets, masked_arguments
from cluster_lock.keeper.names import INSTANCE

from .environment import GRPC, SILENT, given
from .options import add_settings_options, settings_from

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.keeper.plan import KeeperSpec

PACKAGES = Path(__file__).parents[2]
"""Where `cluster_lock` is: for a checkout that is not installed."""
log = logging.getLogger("cluster_lock.cli")

WRONG_ARGUMENTS = 2
RESTARTS = ("on-failure", "always", "never")


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="run any program while the lock is held",
        description="Wait for the lock, and run COMMAND while it is held. When the lock is lost, COMMAND and all that"
        " it started are gone before somebody else can have it. In its environment: CLUSTER_LOCK_NAME,"
        " CLUSTER_LOCK_FENCING_TOKEN, and CLUSTER_LOCK_FD, a pipe with a line of JSON for each renewal; and"
        " CLUSTER_LOCK_INSTANCE where --instance is given, so that a bot in COMMAND has that name.",
        epilog="Exit codes: COMMAND's own; 128 + N if signal N ended it, or came while we waited; 75 with --no-wait if"
        " somebody else holds the lock; 69, 77, 78: the backend is unreachable (with --fail-fast), refuses, or the"
        " configuration is wrong; 70: the lock's time was over and COMMAND had to be ended with us; 127: no such"
        " program.",
        examples=("--lock reports -- php report.php", "--lock import --no-wait -- ./import.sh --all"),
    )
    parser.add_argument(
        "--lock",
        type=_lock_name,
        metavar="NAME",
        help="the lock (default: made of the whole command, so the same one waits, and another one does not)",
    )
    parser.add_argument("--no-wait", action="store_true", help="end with code 75 if somebody else holds the lock")
    add_keeper_options(parser, restart="never")
    add_settings_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    parser.set_defaults(run=run)


def add_keeper_options(parser: argparse.ArgumentParser, *, restart: str) -> None:
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how to log: text for people, or JSON lines"
    )
    parser.add_argument(
        "--restart",
        choices=RESTARTS,
        default=restart,
        help=f"whether to start it again when it has ended by itself (default: {restart})",
    )
    parser.add_argument(
        "--fail-fast", action="store_true", help="end with code 69 if the backend cannot be reached at the start"
    )
    parser.add_argument(
        "--allow-setuid",
        action="store_true",
        help="let it start sudo, ping and other programs that run as another user. Unless started by root, the keeper"
        " cannot end those: they may work on when the lock is lost",
    )


def run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        print("run: which program? cluster-lock run [options] -- COMMAND [ARGUMENT...]", file=sys.stderr)
        raise SystemExit(WRONG_ARGUMENTS)
    if arguments.log_format == "json":
        logs.configure("json")  # what is wrong with the settings, too
    hold_signals_back()
    settings = settings_from(arguments)
    if arguments.instance is not None:
        os.environ[INSTANCE] = settings.instance  # a bot in COMMAND has that name too
    lock = arguments.lock or name_of(command)
    if arguments.lock is None:
        logs.configure(arguments.log_format)
        log.info("the lock is %s, after the whole command; --lock NAME gives it a name of your own", lock)
    become_keeper(settings, plan_for(settings, command, arguments, lock=lock, wait=not arguments.no_wait))


def name_of(command: list[str]) -> str:
    """The lock of a command that was given none: for people the program's name, and what tells it from others that are
    run by the same one. Secrets in it make no difference."""
    program = PurePath(command[0]).name
    whole = "\0".join(masked_arguments([program, *command[1:]])).encode(errors="surrogateescape")
    return f"run/{program}-{hashlib.sha256(whole).hexdigest()[:8]}"


def _lock_name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a name; without --lock it is made of the command")
    return text


def hold_signals_back() -> None:
    """On the way to becoming a keeper: one that comes meanwhile is not lost, also as process 1 of a container."""
    if sys.platform != "win32":
        from cluster_lock.keeper.stopping import hold_back

        hold_back()


def plan_for(
    settings: Settings,
    command: list[str],
    arguments: argparse.Namespace,
    *,
    lock: str | None = None,
    name: str | None = None,
    wait: bool = True,
) -> KeeperSpec:
    """What the keeper of `command` needs. `lock`, `name`: as for a Plan."""
    from cluster_lock.config.backend import driver_options
    from cluster_lock.config.secret_settings import secret_texts
    from cluster_lock.keeper.plan import KeeperSpec

    return KeeperSpec(
        backend=settings.backend,
        options=driver_options(settings),
        timing=settings.timing,
        # Several commands may run on one host, and each contends by itself.
        instance=settings.instance if lock is None or arguments.instance else f"{settings.instance}:{lock}",
        command=tuple(command),
        lock=lock,
        name=name,
        restart=arguments.restart,
        wait=wait,
        fail_fast=arguments.fail_fast,
        allow_setuid=arguments.allow_setuid,
        replaces=getattr(arguments, "replace", False),
        fencing_floor=settings.fencing_floor,
        fingerprint=settings.fingerprint,
        # A command under a lock needs no folder of ours, and a container's user may have none.
        state_directory=str(settings.state_directory) if lock is None else None,
        health=settings.health,
        log_format=arguments.log_format,
        secrets=tuple(kept_secrets().union(secret_texts(settings))),  # a foreign driver's too
    )


def become_keeper(settings: Settings, plan: KeeperSpec) -> NoReturn:
    """This process becomes the keeper: same pid, and nothing of what reading the settings took stays in its memory."""
    if sys.platform == "win32":
        raise ConfigError(["there is no keeper on Windows: use `bot start --in-process`"])
    from cluster_lock.config import open_driver
    from cluster_lock.keeper.names import LOCALE
    from cluster_lock.keeper.plan import handed_over
    from cluster_lock.process.core_dumps import no_core_dumps

    open_driver(settings)  # which complains here of what keeps it from being made
    before = given()
    # Nothing of the working directory: what lies there is not for the process that has the backend's credentials.
    path = [*before.get("PYTHONPATH", "").split(os.pathsep), str(PACKAGES)]
    ours = {
        GRPC: before.get(GRPC, SILENT),
        "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(path))),
    }
    plan = replace(plan, environ_before={name: before.get(name) for name in (*ours, LOCALE)}, core=no_core_dumps())
    sys.stdout.flush()
    keeper = [sys.executable, "-P", "-m", "cluster_lock.keeper", str(handed_over(plan))]
    os.execve(sys.executable, keeper, before | ours)
