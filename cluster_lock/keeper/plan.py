"""What a keeper needs to know, as plain values.

The command that read the settings hands it over through an open file that has no name, so that the keeper itself stays
small and no secret stands in its arguments.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cluster_lock.driver import Driver
from cluster_lock.errors import ConfigError
from cluster_lock.values import Timing

Restart = Literal["on-failure", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSpec:
    """`options`: of the driver. `lock`: for a command that knows nothing of us, the lock that it runs under; None for
    a worker, which asks for its locks itself; then `name` is the one that it will ask for, if that is known."""

    backend: str
    options: Mapping[str, Any]
    timing: Timing
    instance: str
    command: tuple[str, ...]
    environ_before: Mapping[str, str | None] = field(default_factory=dict)
    """What we changed in the environment for ourselves, as it was; None: not there."""
    core: int | None = None
    """The limit for core dumps as it was before we set one for ourselves. For a command under `lock`."""
    allow_setuid: bool = False
    """Whether the command, or the worker, may start programs of other users."""
    lock: str | None = None
    name: str | None = None
    restart: Restart = "on-failure"
    wait: bool = True
    fail_fast: bool = False
    replaces: bool = False
    """The instance runs already: stand by beside it, and take its name when it has ended."""
    fencing_floor: int = 0
    fingerprint: str | None = None
    state_directory: str | None = None
    health: str = "off"
    log_format: Literal["text", "json"] = "text"
    secrets: tuple[str, ...] = ()
    """Texts that are never to be shown."""

    @property
    def scope(self) -> str:
        """What tells the locks of one group of instances from those of another that uses the same host."""
        return str(self.options.get("prefix", ""))

    def environ(self) -> dict[str, str]:
        """For the command: what it was before there was a keeper."""
        before = {**os.environ, **self.environ_before}
        return {name: value for name, value in before.items() if value is not None}

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), default=os.fspath).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> KeeperSpec:
        content = json.loads(raw)
        timing = Timing(**content.pop("timing"))
        return cls(**{**content, "timing": timing, "command": tuple(content["command"])})

    def driver(self) -> Driver:
        """The driver, not yet open. Raises ConfigError and DriverMissing."""
        from cluster_lock.drivers import driver_class

        return driver_class(self.backend)(**self.options)


PIPE_TAKES = 60_000
"""Bytes that certainly fit into a pipe before somebody reads."""


def handed_over(plan: KeeperSpec) -> int:
    """The number of an open file with `plan` in it, nowhere but in memory, for a program that replaces this one. Raises
    ConfigError if it is too long for what this platform has."""
    content = plan.to_bytes()
    number = _written(content)
    os.set_inheritable(number, True)
    return number


def _written(content: bytes) -> int:
    if sys.platform == "linux":
        with suppress(OSError):  # forbidden here (sysctl vm.memfd_noexec)
            number = os.memfd_create("plan")
            with os.fdopen(number, "wb", closefd=False) as file:
                file.write(content)
                file.seek(0)
            return number
    if len(content) > PIPE_TAKES:
        raise ConfigError(["the command line is too long to be handed to a keeper on this platform"])
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(content)
    return reading


def received(number: int) -> KeeperSpec:
    """The plan from the file with this number."""
    with os.fdopen(number, "rb") as file:
        return KeeperSpec.from_bytes(file.read())
