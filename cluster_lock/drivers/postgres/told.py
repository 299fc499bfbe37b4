"""What libpq makes of all that it is told: a connection string, the service that it names, its variables, defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from cluster_lock.drivers.shared.utf8 import is_text
from cluster_lock.errors import ConfigError

_NONE = "?"
"""Which is no target_session_attrs. libpq looks at what it is told first, at this last, and connects after that."""
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)


def told(psycopg: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """By what it would connect, with secrets. Raises ConfigError for what is wrong in it, and repeats no value."""
    asked = psycopg.conninfo.make_conninfo("", **{**given, "target_session_attrs": _NONE})
    connection = psycopg.pq.PGconn.connect_start(asked.encode())
    try:
        options = connection.info
        said = connection.error_message.decode(errors="replace").strip().partition("\n")[0]
    finally:
        connection.finish()
    # By value: the database is named after the user where nobody has named it.
    if bad := {option.val: option for option in reversed(options) if not is_text(option.val or b"")}:
        raise ConfigError([f"postgres: {_source(option, given)} is not UTF-8" for option in bad.values()])
    if "target_session_attrs" not in said:
        raise ConfigError([f"postgres: {_without_value(said, options, given)}"])
    found = {option.keyword.decode(): option.val.decode() for option in options if option.val}
    sources = {option.keyword.decode(): _source(option, given) for option in options}
    if problems := list(_problems(found, sources)):
        raise ConfigError([f"postgres: {problem}" for problem in problems])
    return found


def _problems(found: Mapping[str, str], sources: Mapping[str, str]) -> Any:
    """What libpq finds out when it connects, and not before."""
    for name in _NUMBERS:
        if not re.fullmatch(r"\s*[+-]?\d+\s*", found.get(name, "0")):
            yield f"{sources[name]} must be a whole number"
    if not all(_is_port(port) for port in found.get("port", "").split(",")):
        yield f"{sources['port']} must be a number from 1 to 65535"
    if found.get("load_balance_hosts", "disable") not in ("disable", "random"):
        yield f"{sources['load_balance_hosts']} must be disable or random"
    for name in ("host", "hostaddr"):
        # A socket's name may begin with one.
        if any("@" in host[1:] for host in found.get(name, "").split(",")):
            yield f"{sources[name]} has an @ in it: no user and no password may stand there"


def _is_port(text: str) -> bool:
    return not text or (re.fullmatch(r"\s*\d{1,5}\s*", text) is not None and 0 < int(text) < 65536)


def _source(option: Any, given: Mapping[str, Any]) -> str:
    """Who has told it."""
    name, variable = option.keyword.decode(), (option.envvar or b"").decode()
    if name in given:
        return f"{name} of the dsn"
    if variable and os.fsencode(os.environ.get(variable, "")) == option.val:
        return variable
    return f"{name} of the service"


def _without_value(said: str, options: Any, given: Mapping[str, Any]) -> str:
    """libpq's sentence, with who has told it for what it quotes of a value."""
    wrong = re.fullmatch(r'invalid "?(\w+)"? value: ".*"', said)
    option = next((option for option in options if wrong and option.keyword.decode() == wrong[1]), None)
    return f"{_source(option, given)} is none of the values that libpq knows" if option else said
