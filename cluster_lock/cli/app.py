"""The user's own bot, by name: `--app MODULE:NAME` and `--bot MODULE:NAME`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cluster_lock.errors import ClusterLockError, ConfigError
from cluster_lock.host import logs

from .slots import lock_of

if TYPE_CHECKING:
    from aiogram import Bot, Dispatcher

    from cluster_lock.config import Settings

log = logging.getLogger("cluster_lock.cli")

_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True, slots=True)
class App:
    """What the command line named, imported; nothing of it is called yet."""

    name: str
    found: Any
    """A Dispatcher, or a function that makes one, with more or less beside it."""
    module: ModuleType
    bot: Bot | None

    async def made(self, settings: Settings) -> tuple[Dispatcher, Bot, Mapping[str, Any]]:
        """The Dispatcher, the Bot, and more arguments of `start_polling` (on_elected, ...). A function is called here,
        in the event loop in which all will live, and awaited if it is async. Without a Bot of the user's, one that
        `settings` describe. Raises ConfigError."""
        from aiogram import Bot, Dispatcher

        from cluster_lock.aiogram import bot_from

        made = self.found if isinstance(self.found, Dispatcher) else await self._called()
        dispatcher, *others = made if isinstance(made, tuple | list) else (made,)
        arguments = others.pop() if others and isinstance(others[-1], Mapping) else {}
        if not (isinstance(dispatcher, Dispatcher) and len(others) <= 1 and all(isinstance(it, Bot) for it in others)):
            wanted = 'a Dispatcher, (dispatcher, bot) or (dispatcher, bot, {"on_elected": ...})'
            raise ConfigError([f"--app {self.name}: returned {_kind(made)}, and not {wanted}"])
        if others and self.bot is not None:
            raise ConfigError([f"--app {self.name}: returns a Bot, so leave --bot out"])
        if given := sorted({"config", "leadership"} & arguments.keys()):
            raise ConfigError([f"--app {self.name}: {given[0]} is the command's to say, and not the function's"])
        bot = others[0] if others else self.bot
        if bot is None:
            self._say_unused()
            return dispatcher, bot_from(settings), arguments
        _refuse_another(bot, settings)
        return dispatcher, bot, arguments

    async def _called(self) -> Any:
        from cluster_lock.aiogram.loading import no_polling

        try:
            with no_polling(_refusing(f"--app {self.name}")):
                made = self.found()
                made = await made if inspect.isawaitable(made) else made
                await asyncio.sleep(0)  # what it has started begins here, and is refused here
                return made
        except ClusterLockError:
            raise
        except Exception as error:
            raise ConfigError([f"--app {self.name}: failed: {_told(error)}"]) from error

    def _say_unused(self) -> None:
        """A Bot beside the Dispatcher was made for something."""
        from aiogram import Bot

        own = next((name for name, value in vars(self.module).items() if isinstance(value, Bot)), None)
        if own is not None:
            log.warning(
                "%s has a Bot, %s, which is not used: its defaults and its session count with --bot %s:%s",
                *(self.module.__name__, own, self.module.__name__, own),
            )


def load_app(name: str, bot: str | None = None) -> App:
    """What "module:name" says, looked for in the working directory too: `name` for the Dispatcher, or a function that
    makes one, `bot` for the Bot. Raises ConfigError."""
    option = f"--app {name}"
    for needed in ("aiogram", "aiohttp"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigError([f"{needed} is not installed: pip install 'cluster-lock[aiogram]'"])
    _imported(option, "cluster_lock.aiogram")
    from aiogram import Bot, Dispatcher

    from cluster_lock.aiogram.loading import no_polling

    with no_polling(_refusing(option)):
        module, found = _named(option, name)
        _, own = _named(f"--bot {bot}", bot) if bot is not None else (None, None)
    if not isinstance(found, Dispatcher) and not callable(found):
        raise ConfigError([f"{option}: is {_kind(found)}, and not an aiogram Dispatcher"])
    if bot is None:
        return App(name, found, module, None)
    if not isinstance(own, Bot):
        raise ConfigError([f"--bot {bot}: is {_kind(own)}, and not an aiogram Bot"])
    return App(name, found, module, own)


def _refuse_another(bot: Bot, settings: Settings) -> None:
    """The lock and the name on this host are those of the settings' bot."""
    from cluster_lock.aiogram import lock_name

    lock = lock_of(settings)
    if lock_name(bot) != lock:
        raise ConfigError([f"the Bot is that of {lock_name(bot)}, and telegram.token that of {lock}: they must be one"])
    if bot.token != settings.bot_token().get_secret_value():
        raise ConfigError([f"the Bot of {lock} has another token than telegram.token says: one of them is old"])


def module_and_name(text: str) -> str:
    """What an ArgumentParser takes for --app and --bot."""
    module_name, _, attribute = text.partition(":")
    if not (module_name and attribute):
        raise argparse.ArgumentTypeError(f"must be MODULE:NAME, such as mybot.main:dispatcher, but is {text!r}")
    return text


def _refusing(option: str) -> Callable[[str], None]:
    """Ends the process, whatever the app makes of exceptions: it would poll outside of the lock, on every instance, and
    nothing is there yet that could be handed over."""

    def refuse(what: str) -> None:
        logs.say_last(
            f"{option}: calls {what} while it is loaded, and would poll without the lock: --app must name the"
            " Dispatcher (or a function that returns it) and must not poll itself; put that below"
            ' `if __name__ == "__main__":`, or use `cluster-lock run -- python main.py`'
        )
        logging.shutdown()  # which writes what is not written yet
        os._exit(ConfigError.exit_code)

    return refuse


def _named(option: str, name: str) -> tuple[ModuleType, Any]:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = _imported(option, module_name)
    module: ModuleType = found
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError([f"{option}: {module_name} has no {attribute}"])
        found = getattr(found, part)
    return module, found


def _imported(option: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ConfigError([f"{option}: there is no module {missing}"]) from error
        raise ConfigError([f"{option}: {module_name} needs the module {missing}, which is not there"]) from error
    except Exception as error:
        raise ConfigError([f"{option}: {module_name} cannot be imported: {_told(error)}"]) from error


def _told(error: Exception) -> str:
    """The error and its place, on one line: the last one in code of the user's own, as far as that can be told."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, "<frozen"))]
    where = (own or frames)[-1]
    place = f"{where.filename}:{where.lineno}"
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    return " ".join(f"{type(error).__name__}: {error} ({place})".split())


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
