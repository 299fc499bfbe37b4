"""The types of values that settings have: each takes a text, and says what is wrong with it and what it should be."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from cluster_lock.drivers.postgres import dsn_problem
from cluster_lock.host.listen_address import OFF, listen_address

LONGEST = 24 * 3600.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s?([a-zA-Z]*)")
_FORM = "a duration is a number with ms, s, m or h behind it, such as 15s"


def seconds(value: object) -> float:
    """What `15s`, `500ms`, `2m` or `1h` says. A bare number is refused: people mean different units by it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(_FORM)
    number, unit = match.groups()
    if unit not in _UNITS:
        raise ValueError(f"the unit {unit!r} is not known: {_FORM}" if unit else f"the unit is missing: {_FORM}")
    found = float(number) * _UNITS[unit]
    if found > LONGEST:
        raise ValueError("is too long: at most 24h")
    return found


def duration_text(value: float | None) -> str:
    """As a person would write it into config.yaml; None is off."""
    if value is None:
        return OFF
    for unit in ("h", "m", "s"):
        if value >= _UNITS[unit] and value % _UNITS[unit] == 0:
            return f"{value / _UNITS[unit]:g}{unit}"
    return f"{value:g}s" if value >= 1 or value == 0 else f"{value * 1000:g}ms"


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h)$", "examples": ["15s", "500ms"]}),
]
"""Seconds, written with a unit."""


def _seconds_or_off(value: object) -> float | None:
    # YAML reads a bare `off` as false.
    return None if value is None or value is False or value == OFF else seconds(value)


OptionalDuration = Annotated[
    float | None,
    BeforeValidator(_seconds_or_off),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(off|[0-9]+(\.[0-9]+)? ?(ms|s|m|h))$", "examples": ["off", "5m"]}),
]
"""The same, or off: None."""


def _a_minute(value: float) -> float:
    if value > 60:
        raise ValueError("must be at most 60s")
    return value


ShortDuration = Annotated[Duration, AfterValidator(_a_minute)]


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_LIST_SCHEMA = WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
Texts = Annotated[tuple[str, ...], BeforeValidator(_list), _LIST_SCHEMA]
"""A list, or one text with commas."""


def _address(value: str, plain: str = "http", port: int = 8500) -> str:
    is_bare = "://" not in value
    parts = urlsplit(f"{plain}://{value}" if is_bare else value)
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or password: there are keys for them")
    try:
        good = parts.scheme in (plain, f"{plain}s") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # a port above 65535, or not a number
        good = False
    if is_bare and (parts.path.strip("/") or (parts.hostname or "").isdigit()):
        good = False  # a port alone, or a slash too few
    if plain == "redis" and parts.path.strip("/"):
        raise ValueError("must end behind the port: the number of the database is redis.db")
    if not good or re.search(r"\s", value) or parts.query or parts.fragment:
        raise ValueError(f"must be an address such as {plain}://127.0.0.1:{port} or {plain}s://host:port")
    return value.rstrip("/")


def _one_or_more(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must name at least one address")
    return value


Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(_list), AfterValidator(_one_or_more), _LIST_SCHEMA]
RedisAddress = Annotated[str, AfterValidator(partial(_address, plain="redis", port=6379))]
RedisAddresses = Annotated[tuple[RedisAddress, ...], BeforeValidator(_list), AfterValidator(_one_or_more), _LIST_SCHEMA]


def _dsn(value: str) -> str:
    if (problem := dsn_problem(value)) is not None:
        raise ValueError(problem)
    return value


Dsn = Annotated[str, AfterValidator(_dsn)]


def _listening(value: str) -> str:
    address = listen_address(value)
    return address.text if address is not None else OFF


Listening = Annotated[str, AfterValidator(_listening)]
"""HOST:PORT or off."""


def _file(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must be a path")
    return Path(os.path.expanduser(value)) if isinstance(value, str) else value  # Path.expanduser raises


FilePath = Annotated[Path, BeforeValidator(_file)]


def _matches(pattern: str, what: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


Instance = Annotated[
    str,
    _matches(r"(?!\.{1,2}\Z)[A-Za-z0-9._@-]{1,128}", "up to 128 letters, digits and any of . _ @ -, as a host name"),
]


def _with_slash(value: Any) -> Any:
    return value.rstrip("/") + "/" if isinstance(value, str) else value


Prefix = Annotated[
    str,
    BeforeValidator(_with_slash),
    _matches(r"(?:[A-Za-z0-9._@:-]+/)+", "letters, digits and . _ @ : - in parts with one slash after each"),
]


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.strip("\"'") != text:
        raise ValueError("has quotes around it, which are no part of a token: leave them out")
    if not re.fullmatch(r"[0-9]{1,20}:[A-Za-z0-9_-]{1,200}", text):
        raise ValueError("is not a bot token: BotFather gives digits, a colon, and letters, digits, _ or -")
    return value


Token = Annotated[SecretStr, AfterValidator(_token)]
