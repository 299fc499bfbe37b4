"""Which bot's instance on this host a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_lock.errors import ConfigError
from cluster_lock.telegram.locks import telegram_lock

if TYPE_CHECKING:
    from cluster_lock.config import Settings
    from cluster_lock.process import InstanceLock


def lock_of(settings: Settings) -> str:
    """The name of the bot's lock. Raises ConfigError if there is no token."""
    bot_id = int(settings.bot_token().get_secret_value().partition(":")[0])
    return telegram_lock(bot_id, test=settings.telegram.test_environment)


def slots_of(settings: Settings, lock: str | None) -> tuple[InstanceLock, InstanceLock]:
    """Of the successor, if there is one, and of the instance itself, where it leads `lock`.

    Look at them in this order: it takes the name before it gives up its own, and is so seen in any case. And end them
    in this order, or it would take the place of the other one for a moment.
    """
    from cluster_lock.keeper.slots import slot, successor

    where = settings.state_directory
    return successor(settings.instance, lock, where), slot(settings.instance, lock, where)


def slots_here(settings: Settings) -> tuple[InstanceLock, InstanceLock]:
    """The same two, of the bot that the settings mean: without a token of the one bot that runs under this instance.

    A process of version 0.1 holds the name of the instance alone. It is found where nobody holds that of the bot.
    Raises ConfigError if it cannot be told which bot is meant.
    """
    found = slots_of(settings, _lock_here(settings))
    before = slots_of(settings, None)
    if any(lock.look()[0] for lock in before) and not any(lock.look()[0] for lock in found):
        return before
    return found


def not_here(lock: InstanceLock, settings: Settings) -> str:
    """That it does not run here, and which others do."""
    others = others_here(settings)
    return f"{lock.title} does not run here{f' ({others})' if others else ''}"


def misnamed(lock: InstanceLock, settings: Settings) -> str:
    """For where the instance does not run: a sentence, if nobody has said which one is meant (its name is the host's,
    by default) and the bot runs here under other names. Without a token any bot will do."""
    from cluster_lock.keeper.slots import instances_here

    if settings.origin_of("instance") != "default":
        return ""
    bot = lock_of(settings) if settings.telegram.token is not None else None
    return not_here(lock, settings) if instances_here(settings.state_directory, bot) - {settings.instance} else ""


def others_here(settings: Settings) -> str:
    """For where the instance does not run: which others do, if any. The host, whose name was its own, may have been
    renamed."""
    from cluster_lock.keeper.slots import instances_here

    others = sorted(instances_here(settings.state_directory) - {settings.instance})
    return f"here run {', '.join(map(repr, others))}: --instance NAME" if others else ""


def _lock_here(settings: Settings) -> str | None:
    from cluster_lock.keeper.slots import locks_here

    if settings.telegram.token is not None:
        return lock_of(settings)
    found = sorted(locks_here(settings.instance, settings.state_directory))
    if len(found) > 1:
        which = f"several bots run here as instance {settings.instance!r} ({', '.join(found)}): say which by its token"
        raise ConfigError([f"{which} (TELEGRAM_BOT_TOKEN, or telegram.token_file in the configuration)"])
    return found[0] if found else None
