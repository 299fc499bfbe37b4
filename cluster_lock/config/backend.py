"""From settings to a driver."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from cluster_lock.driver import Driver
from cluster_lock.drivers import BUILTIN, driver_class
from cluster_lock.errors import ConfigError

from .model import Settings


def driver_options(settings: Settings) -> dict[str, Any]:
    """What the class of the chosen backend is called with, by keyword. Holds secrets: not for logs."""
    common = {"prefix": settings.prefix, "request_timeout": settings.timing.request}
    if (theirs := settings.foreign_section) is not None:
        return {**{name: _plain(getattr(theirs, name)) for name in type(theirs).model_fields}, **common}
    if settings.backend not in BUILTIN:
        return {**settings.foreign(settings.backend), **common}
    section = getattr(settings, settings.backend)
    names = [name for name in type(section).model_fields if not name.endswith("_file")]  # these are read by now
    options = {"urls" if name == "url" else name: _plain(getattr(section, name)) for name in names}
    return {**options, **common}


def open_driver(settings: Settings) -> Driver:
    """The driver of the chosen backend, made and not yet opened (`await driver.open()` does that).

    Raises ConfigError; DriverMissing if its client library is not installed.
    """
    made = driver_class(settings.backend)
    options = driver_options(settings)
    if settings.backend in BUILTIN:
        return made(**options)
    try:
        driver = made(**options)
    except TypeError as error:
        raise ConfigError([f"{settings.backend}: the driver does not take these settings: {error}"]) from error
    if lacks := [name for name in vars(Driver) if not name.startswith("_") and not _has(driver, name)]:
        raise ConfigError([f"{settings.backend}: the driver lacks {', '.join(lacks)}, which the contract asks for"])
    return driver


def _has(driver: object, name: str) -> bool:
    """Without asking a property, which may want an open driver."""
    return hasattr(type(driver), name) or name in vars(driver)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return list(value) if isinstance(value, tuple) else value
