"""The user's own bot, by name: `--app MODULE:NAME` and `--bot MODULE:NAME`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cluster_lock.errors import ClusterLockError, ConfigError

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
        try:
            made = self.found()
            return await made if inspect.isawaitable(made) else made
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
    module, found = _named(option, name, "mybot.main:dispatcher")
    from aiogram import Bot, Dispatcher

    if not isinstance(found, Dispatcher) and not callable(found):
        raise ConfigError([f"{option}: is {_kind(found)}, and not an aiogram Dispatcher"])
    if bot is None:
        return App(name, found, module, None)
    _, own = _named(f"--bot {bot}", bot, "mybot.main:bot")
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


def _named(option: str, name: str, example: str) -> tuple[ModuleType, Any]:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError([f"{option}: must be MODULE:NAME, such as {example}"])
    for needed in ("aiogram", "aiohttp"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigError([f"{needed} is not installed: pip install 'cluster-lock[aiogram]'"])
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
