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
    match settings.backend:
        case "file":
            return {"directory": settings.file.directory, **common}
        case "etcd":
            etcd = settings.etcd
            return {
                "endpoints": list(etcd.endpoints),
                "ca": etcd.ca,
                "cert": etcd.cert,
                "key": etcd.key,
                "user": etcd.user,
                "password": _shown(etcd.password),
                **common,
            }
        case "consul":
            consul = settings.consul
            return {
                "urls": list(consul.url),
                "token": _shown(consul.token),
                "ca": consul.ca,
                "cert": consul.cert,
                "key": consul.key,
                "datacenter": consul.datacenter,
                "lock_delay": consul.lock_delay,
                "behavior": consul.behavior,
                "checks": list(consul.checks),
                "session_node": consul.session_node,
                **common,
            }
        case other:
            return {**settings.foreign(other), **common}


def open_driver(settings: Settings) -> Driver:
    """The driver of the chosen backend, made and not yet opened (`await driver.open()` does that).

    Raises ConfigError; DriverMissing if its client library is not installed.
    """
    made = driver_class(settings.backend)
    options = driver_options(settings)
    try:
        return made(**options)
    except TypeError as error:
        if settings.backend not in BUILTIN:
            raise ConfigError([f"{settings.backend}: the driver does not take these settings: {error}"]) from error
        raise


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
