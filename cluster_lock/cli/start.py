"""Running a bot in the foreground: standby until elected, and leader as long as the lock is held."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from cluster_lock import logs
from cluster_lock.errors import ConfigError
from cluster_lock.keeper.names import under_keeper

from . import detached
from .environment import quiet_grpc
from .options import add_settings_options, settings_from
from .run import add_keeper_options, become_keeper, hold_signals_back, plan_for
from .slots import lock_of, slots_of
from .streams import unspoken

if TYPE_CHECKING:
    from aiogram import Dispatcher

    from cluster_lock.config import Settings
    from cluster_lock.election import Election
    from cluster_lock.process import InstanceLock


log = logging.getLogger("cluster_lock.cli")


def add(commands: Any, *, app: str | None = None) -> None:
    """Add the command to an ArgumentParser's sub-parsers. `app`: the Dispatcher to run unless another one is named."""
    named = "--app mybot.main:dispatcher" if app is None else ""
    parser: argparse.ArgumentParser = commands.add_parser(
        "start",
        help="run the bot: standby until elected",
        description="Run the bot in the foreground. It stands by until it holds the bot's lock, and polls as long as it"
        " does. SIGTERM or Ctrl-C hands over and ends; a second one ends at once.",
        examples=[
            f"{named}{more}".strip() for more in ("", " --detach", " --config /etc/mybot/config.yaml --log-format json")
        ],
    )
    add_options(parser, app)
    parser.add_argument("--detach", action="store_true", help="run in the background, with a log file")
    parser.add_argument("--replace", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser, app: str | None) -> None:
    """What `start` and `restart` have in common."""
    parser.add_argument(
        "--app",
        default=app,
        required=app is None,
        metavar="MODULE:NAME",
        help="the aiogram Dispatcher to run" + (f" (default: {app})" if app else ""),
    )
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="lead from within the bot's own process, without a keeper beside it",
    )
    add_keeper_options(parser, restart="on-failure")
    add_settings_options(parser)


def run(options: argparse.Namespace) -> int:
    """Until it is stopped: 0. Raises ClusterLockError, whose `exit_code` is what the process ends with."""
    if options.log_format == "json":
        logs.configure("json")  # what is wrong with the settings, too
    worker = under_keeper()
    if options.detach and not worker:
        return detached.start(_settings(options))
    if not (worker or options.in_process or sys.platform == "win32"):
        _become_keeper(options)
    return _run_here(options, worker=worker)


def _become_keeper(options: argparse.Namespace) -> NoReturn:
    hold_signals_back()
    settings = _settings(options)
    _begin_log(options, settings)
    command = [sys.executable, *sys.orig_argv[1:], "--in-process"]
    become_keeper(settings, plan_for(settings, command, options, name=lock_of(settings)))


def _settings(options: argparse.Namespace) -> Settings:
    settings = settings_from(options)
    settings.bot_token()  # which complains if there is none, before the slow part
    return settings


def _run_here(options: argparse.Namespace, *, worker: bool) -> int:
    with _stopped_at_once():
        settings = _settings(options)
        from cluster_lock.config.secret_texts import secret_texts
        from cluster_lock.process.core_dumps import no_core_dumps

    no_core_dumps()
    _, slot = slots_of(settings, lock_of(settings))
    with nullcontext() if worker else slot as instance:
        if worker:
            logs.configure(options.log_format, secrets=secret_texts(settings))
        else:
            _begin_log(options, settings)
        with unspoken():
            with _stopped_at_once(), _objects_that_stay():
                dispatcher = load_app(options.app)
            asyncio.run(_start(dispatcher, settings, instance, fail_fast=options.fail_fast))
    return 0


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """A signal to stop ends the process, with 128 + its number: there is nothing to hand over yet.

    During imports a KeyboardInterrupt is not to be relied on. One that is raised in a callback of the import system's
    own is printed and forgotten, and one that passes an `exec` of a text, as in dataclasses, makes Python end itself by
    SIGINT whatever was to be its exit code. And nothing but a handler ends process 1 of a container.
    """
    from cluster_lock.process.signals import StopSignals

    signals = StopSignals(lambda number: os._exit(128 + number))
    signals.install()
    try:
        yield
    finally:
        signals.restore()


@contextmanager
def _objects_that_stay() -> Iterator[None]:
    """What is made in the block is not looked at by the garbage collector, neither now nor ever.

    Importing aiogram makes objects by the million. Looking for garbage among them takes a sixth of that time, and once
    more 0.7 s of a processor (8 s were seen on a busy host) when the interpreter ends, after the work is done.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def load_app(name: str) -> Dispatcher:
    """The Dispatcher that "module:name" says, looked for in the working directory too. Raises ConfigError."""
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError([f"--app {name}: must be MODULE:NAME, such as mybot.main:dispatcher"])
    for needed in ("aiogram", "aiohttp"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigError([f"{needed} is not installed: pip install 'cluster-lock[aiogram]'"])
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = _imported(name, module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError([f"--app {name}: {module_name} has no {attribute}"])
        found = getattr(found, part)
    from aiogram import Dispatcher

    if not isinstance(found, Dispatcher):
        raise ConfigError([f"--app {name}: is a {type(found).__name__}, and not an aiogram Dispatcher"])
    return found


def _imported(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ConfigError([f"--app {name}: there is no module {missing}"]) from error
        raise ConfigError([f"--app {name}: {module_name} needs the module {missing}, which is not there"]) from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        if isinstance(error, SyntaxError):
            place = f"{error.filename}:{error.lineno}"
        text = f"--app {name}: {module_name} cannot be imported: {type(error).__name__}: {error} ({place})"
        raise ConfigError([" ".join(text.split())]) from error


async def _start(dispatcher: Dispatcher, settings: Settings, instance: InstanceLock | None, *, fail_fast: bool) -> None:
    from cluster_lock.aiogram import bot_from, start_polling

    async with _leadership(settings, instance, fail_fast=fail_fast) as leadership:
        await start_polling(
            dispatcher, bot_from(settings), config=settings, leadership=leadership, instance=settings.instance
        )


@asynccontextmanager
async def _leadership(settings: Settings, instance: InstanceLock | None, *, fail_fast: bool) -> AsyncIterator[Election]:
    """The election, and what this process shows of it. Under a keeper the keeper does."""
    from cluster_lock.config.secret_texts import secret_texts
    from cluster_lock.election import Election
    from cluster_lock.health import Board, following, open_health
    from cluster_lock.health.peers import SessionPeers
    from cluster_lock.keeper.opening import open_election
    from cluster_lock.session import open_session

    if instance is None:
        async with open_election(settings) as leadership:
            yield leadership
        return
    board = Board(settings.instance, backend=settings.backend, secrets=secret_texts(settings))
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_health(board, settings.health))
        with quiet_grpc():
            session = await stack.enter_async_context(
                open_session(settings, fail_fast=fail_fast, health=url, observer=board)
            )
        await stack.enter_async_context(following(board))
        instance.say(health=url)
        election = Election(session)
        board.peers = SessionPeers(session)
        board.poller_source = lambda: election.reports()
        yield election


def _begin_log(options: argparse.Namespace, settings: Settings) -> None:
    from cluster_lock.config import shown_line
    from cluster_lock.config.secret_texts import secret_texts

    logs.configure(options.log_format, secrets=secret_texts(settings))
    log.info("settings: %s. `cluster-lock config` shows all", shown_line(settings))
