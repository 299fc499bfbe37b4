"""All settings: their names, defaults and descriptions, which are the comments of config.yaml, word by word."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cluster_lock.drivers import BUILTIN, available
from cluster_lock.errors import ConfigError
from cluster_lock.host.listen_address import DEFAULT as HEALTH
from cluster_lock.host.listen_address import OFF
from cluster_lock.host.state_directory import state_directory
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.values import HIGHEST_FLOOR, Timing

from .backend_sections import ConsulSection, EtcdSection, FileSection, PostgresSection, RedisSection, Section
from .field_types import (
    Address,
    Duration,
    FilePath,
    Instance,
    Listening,
    OptionalDuration,
    Prefix,
    Token,
)

_DEFAULT = Timing()
CONTRADICTION = "contradiction"
"""The type of the error about values that do not fit together, and what holds each of them with its paths in it."""
_DEFAULT_TIMES = TelegramTimes()


class LockSection(Section):
    ttl: Duration = _DEFAULT.ttl
    """How long the backend keeps a lock for a holder that is silent."""
    margin: Duration = _DEFAULT.margin
    """How long before that a holder that could not renew it has stopped."""
    stop_time: Duration = _DEFAULT.stop_time
    """What the work gets to stop once it is cancelled; a part of the margin."""
    settle: Duration = _DEFAULT.settle
    """How long to wait before working under a lock that was found free."""
    invite: Duration = _DEFAULT.invite
    """How long an invited standby may take to answer before the next one is asked."""
    drain: Duration = _DEFAULT.drain
    """What running handlers get to finish before a hand-over."""
    cancel_grace: Duration = _DEFAULT.cancel_grace
    """What cancelled handlers get after that, before the process is ended."""
    stall_limit: Duration = _DEFAULT.stall_limit
    """How long the event loop may give no sign of life."""


class TelegramSection(Section):
    token: Token | None = None
    """The bot token from BotFather; better TELEGRAM_BOT_TOKEN or token_file."""
    token_file: FilePath | None = None
    """A file that holds the token instead."""
    api: Address = "https://api.telegram.org"
    """The Bot API server."""
    test_environment: bool = False
    """Whether the bot is one of Telegram's test environment."""
    delivery: Literal["at_least_once", "at_most_once"] = "at_least_once"
    """When updates are confirmed: after their handlers (at_least_once) or before (at_most_once)."""
    order: Literal["none", "member", "chat"] = "none"
    """Which updates wait for each other: none (as with aiogram), those of one dialogue (member) or of one chat."""
    window: Literal["open", "strict"] = "open"
    """Whether a slow handler's update is confirmed early (open) when else the bot would fall silent (strict)."""
    max_concurrent: int = Field(default=100, ge=1, le=10_000)
    """How many handlers may run at a time."""
    poll_timeout: Duration = _DEFAULT_TIMES.poll_timeout
    """How long Telegram may hold a getUpdates while there is nothing; at most 50s."""
    handler_timeout: OptionalDuration = Field(
        default=_DEFAULT_TIMES.handler_timeout, json_schema_extra={"default": OFF}
    )
    """How long a handler may run before it is cancelled and its update confirmed; off: as long as it likes."""
    grace: Duration = _DEFAULT_TIMES.telegram_grace
    """How long Telegram may be out of reach from the leader before a standby gets its turn."""
    on_conflict: Literal["retry", "step_down", "exit"] = "retry"
    """What to do when somebody polls this bot without the lock: retry, step_down or exit."""
    delete_webhook: Literal["never", "on_conflict"] = "never"
    """Whether a webhook that keeps the bot from polling is deleted: never or on_conflict."""


class Settings(Section):
    """All settings, checked. Frozen; its repr and its dumps show no secret.

    `load` makes one. Made by hand, it takes durations as texts and the secrets themselves: only `load` reads files.
    """

    backend: str = "file"
    """Where the locks are kept: file (one host only), etcd, consul, redis (Valkey, too) or postgres."""
    instance: Instance = Field(default_factory=socket.gethostname, validate_default=True)
    """The name of this process slot on this host; empty: POD_NAME, or the host name."""
    prefix: Prefix = "cluster-lock/"
    """What all keys in the backend begin with; the same on all instances."""
    fencing_floor: int = Field(default=0, ge=0, le=HIGHEST_FLOOR)
    """Added to every fencing token; after the backend was restored or replaced, the largest token seen before."""
    health: Listening = HEALTH
    """Where the health page, probes and metrics are served, HOST:PORT; off: nowhere."""
    lock: LockSection = LockSection()
    """Times of the lock and of a hand-over."""
    telegram: TelegramSection = TelegramSection()
    """The bot, and how it polls."""
    file: FileSection = Field(default_factory=FileSection)
    """The backend file."""
    etcd: EtcdSection = EtcdSection()
    """The backend etcd."""
    consul: ConsulSection = ConsulSection()
    """The backend consul."""
    redis: RedisSection = RedisSection()
    """The backend redis."""
    postgres: PostgresSection = PostgresSection()
    """The backend postgres."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _foreign: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _foreign_section: BaseModel | None = PrivateAttr(None)
    _state_directory: Path | None = PrivateAttr(None)

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        if name not in BUILTIN and name not in (names := available()):
            raise ValueError(f"must be one of {', '.join(names)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(self._contradictions()):
            text = "; ".join(f"{paths[0]}: {text}" for paths, text in found)
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text, CONTRADICTION: found})
        return self

    def _contradictions(self) -> Iterator[tuple[list[str], str]]:
        """The paths of values that do not fit together, the culprit first, and a sentence. Checked only here."""
        for name in type(self).model_fields:
            section = getattr(self, name)
            for pair in getattr(section, "pairs", ()):
                keys = [key for key in type(section).model_fields if getattr(section, key) is not None]
                given = {key.removesuffix("_file"): key for key in keys}
                # A file of a backend that is not used asks for nothing: what goes with it may be in a tool's variable.
                asking = given if name == self.backend else keys
                for one, other in (pair, pair[::-1]):
                    if one in asking and other not in given:
                        yield [f"{name}.{given[one]}", f"{name}.{other}"], f"needs {other} beside it"
        for kind in (Timing, TelegramTimes):
            try:
                kind(**self._durations(kind))
            except ValueError as error:
                for text in str(error).split("; "):
                    names = [name for name in TIMING_KEYS if re.search(rf"\b{name}\b", text)]
                    yield [".".join(TIMING_KEYS[name]) for name in sorted(names, key=text.index)], text

    @property
    def timing(self) -> Timing:
        """The durations of the lease and of the work under it, checked against one another."""
        return Timing(**self._durations(Timing))

    @property
    def telegram_times(self) -> TelegramTimes:
        """Those that are Telegram's."""
        return TelegramTimes(**self._durations(TelegramTimes))

    def _durations(self, kind: type[Timing] | type[TelegramTimes]) -> dict[str, Any]:
        places = {field.name: TIMING_KEYS[field.name] for field in fields(kind)}
        return {name: getattr(getattr(self, section), key) for name, (section, key) in places.items()}

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that differ when two instances would not meet at one lock. Goes into every record; holds no
        secret and no address: each host may reach the backend by another one."""
        apart = {"consul": self.consul.datacenter or "", "redis": str(self.redis.db)}
        parts = (self.backend, self.prefix, apart.get(self.backend, ""))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]

    @property
    def state_directory(self) -> Path:
        """Where this host keeps lock files and state files."""
        return self._state_directory or state_directory()

    def bot_token(self) -> SecretStr:
        """The token. Raises ConfigError that says where one may be given."""
        if self.telegram.token is None:
            raise ConfigError(
                ["telegram.token: is missing: set TELEGRAM_BOT_TOKEN, or telegram.token_file in the configuration"]
            )
        return self.telegram.token

    def origin_of(self, path: str) -> str:
        """Where the value of `path` ("lock.ttl") came from: "config.yaml:12", "TELEGRAM_BOT_TOKEN", ".env:3: NAME",
        "command line" or "default"."""
        return self._origins.get(path, "default")

    def foreign(self, section: str) -> Mapping[str, Any]:
        """The section of a driver that is not ours, as it was written."""
        return self._foreign.get(section, {})

    @property
    def foreign_section(self) -> BaseModel | None:
        """The section of the chosen backend as the model of its driver made it; None if it is ours, or names none."""
        return self._foreign_section


TIMING_KEYS: dict[str, tuple[str, str]] = {
    **{name: ("lock", name) for name in LockSection.model_fields},
    "poll_timeout": ("telegram", "poll_timeout"),
    "handler_timeout": ("telegram", "handler_timeout"),
    "telegram_grace": ("telegram", "grace"),
}
"""Where the fields of `Timing` and `TelegramTimes` are written."""
