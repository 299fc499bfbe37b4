"""The command `cluster-lock`."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from cluster_lock.errors import ClusterLockError
from cluster_lock.host import logs
from cluster_lock.version import __version__

from . import bot, config_command, doctor, drivers, init_db, release, run, status, step_down
from .completion import add_completion_option
from .options import Parser, add_commands
from .streams import open_missing, spoken

EXIT_CODES = """\
exit codes:
    0  done
    1  a check is not ok; nobody leads; nothing was done
    2  wrong arguments
    3  it does not run here (bot status; bot stop where others run and none was named)
   69  the backend cannot be reached
   70  the time of the lock was over, and the work had to be ended with the process
   71  the system does not start another process
   73  this instance runs here already
   75  somebody else holds the lock (--no-wait); the leader declined, or did not answer in time
   76  cluster-lock was upgraded under a keeper that ran: start it again
   77  permission refused, by the backend or for a file
   78  wrong settings, among them what the backend or Telegram refuses, and a client library that is missing
  127  no such program (run)
  128 + N  ended by signal N
  else the code of the program that was run"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and answer its exit code. A wrong argument ends it with SystemExit(2), as argparse does."""
    return run_line(parser, argv)


def run_line(parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None) -> int:
    """Run what a command line says, by this parser, and answer its exit code."""
    open_missing()
    with spoken():
        try:
            return run_command(parser().parse_args(argv))
        except SystemExit as end:
            if isinstance(end.code, str):  # of the user's program: the interpreter would print it with what is in it
                print(end.code, file=sys.stderr)
                return 1
            raise


def run_command(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed and answer its exit code: an expected error is its text and its own code."""
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except ClusterLockError as error:
        logs.say_last(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `cluster-lock status --watch | head`
        return 0
    except Exception:
        if sys.excepthook is not sys.__excepthook__:  # the log has it, see `logs.configure`
            raise
        print(traceback.format_exc(), file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="cluster-lock",
        description="One leader on many servers.",
        examples=("bot start --app mybot.main:dispatcher", "run --lock backup -- ./backup.sh", "status", "doctor"),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cluster-lock {__version__}")
    add_completion_option(parser)
    commands = add_commands(parser)
    for command in (run, bot, status, step_down, release, doctor, drivers, init_db, config_command):
        command.add(commands)
    return parser
