"""Running a bot in the foreground: standby until elected, and leader as long as the lock is held."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from cluster_lock.host import logs
from cluster_lock.keeper.names import under_keeper

from . import detached
from .app import App, load_app, module_and_name
from .environment import quiet_grpc
from .options import add_settings_options, settings_from
from .run import add_keeper_options, become_keeper, hold_signals_back, plan_for
from .slots import lock_of, slots_of
from .streams import unspoken

if TYPE_CHECKING:
    from cluster_lock.config import Settings
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
        type=module_and_name,
        metavar="MODULE:NAME",
        help="the aiogram Dispatcher to run, or a function that returns it, alone, as (dispatcher, bot), or as"
        " (dispatcher, bot, {'on_elected': ...}) with arguments of start_polling. Neither the module nor the function"
        " may poll itself: put that below `if __name__ == '__main__':`, or use `cluster-lock run -- python main.py`"
        + (f" (default: {app})" if app else ""),
    )
    parser.add_argument(
        "--bot",
        type=module_and_name,
        metavar="MODULE:NAME",
        help="your Bot, used as it is (default: one that is made from telegram.token and telegram.api)",
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
        from cluster_lock.config.secret_settings import secret_texts
        from cluster_lock.process.core_dumps import no_core_dumps
        from cluster_lock.process.signals import ENDS_WITHIN, ignore_more

    no_core_dumps()
    _, slot = slots_of(settings, lock_of(settings))
    with nullcontext() if worker else slot as instance:
        if worker:
            logs.configure(options.log_format, secrets=secret_texts(settings))
        else:
            _begin_log(options, settings)
        with unspoken():
            with _stopped_at_once(), _objects_that_stay():
                app = load_app(options.app, options.bot)
            asyncio.run(_start(app, settings, instance, fail_fast=options.fail_fast))
            ignore_more(ENDS_WITHIN)
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


async def _start(app: App, settings: Settings, instance: InstanceLock | None, *, fail_fast: bool) -> None:
    from cluster_lock.aiogram import start_polling
    from cluster_lock.keeper.opening import open_shown_election

    dispatcher, bot, arguments = await app.made(settings)
    async with AsyncExitStack() as stack:
        named = [instance] if instance is not None else []
        with quiet_grpc():
            leadership = await stack.enter_async_context(open_shown_election(settings, named, fail_fast=fail_fast))
        own = "instance" in dispatcher.workflow_data
        data: dict[str, Any] = {} if own else {"instance": settings.instance}
        await start_polling(dispatcher, bot, config=settings, leadership=leadership, **{**data, **arguments})


def _begin_log(options: argparse.Namespace, settings: Settings) -> None:
    from cluster_lock.config import shown_line
    from cluster_lock.config.secret_settings import secret_texts

    logs.configure(options.log_format, secrets=secret_texts(settings))
    log.info("settings: %s. `cluster-lock config` shows all", shown_line(settings))
