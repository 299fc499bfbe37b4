"""Who this process is among those that contend, and what its records say."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any

from cluster_lock import clock
from cluster_lock.errors import ConfigError
from cluster_lock.values import HIGHEST_FLOOR, Record
from cluster_lock.version import __version__

from .tokens import Tokens

LONGEST_INSTANCE = 500
"""Characters."""


class Identity:
    """`health`: shown in the records that are written from now on. Raises ConfigError for an `instance` of more than
    500 characters, and for a floor outside of 0 to 5 * 10**15."""

    def __init__(self, instance: str | None, *, health: str | None, config: str | None, fencing_floor: int) -> None:
        self.host = socket.gethostname()
        self.instance = instance or self.host
        if len(self.instance) > LONGEST_INSTANCE:  # a record of ours with more in it would be read as a stranger's
            raise ConfigError([f"the instance's name must have at most {LONGEST_INSTANCE} characters"])
        if not 0 <= fencing_floor <= HIGHEST_FLOOR:  # nor would a record with a larger token be ours
            raise ConfigError([f"fencing_floor must be between 0 and {HIGHEST_FLOOR}"])
        self.holder = f"{self.instance}@{self.host}/{os.getpid()}-{secrets.token_hex(4)}"
        self.fencing_floor = fencing_floor
        self.tokens = Tokens(fencing_floor)
        self.health = health
        self._config = config

    def record(self, *locks: str, **more: Any) -> Record:
        """Who we are, for people to read under the keys, and what we know of `locks`."""
        tokens = {name: self.tokens.of(name) for name in locks}
        return Record(
            holder=self.holder,
            instance=self.instance,
            host=self.host,
            pid=os.getpid(),
            since=clock.utc_text(),
            version=__version__,
            health=self.health,
            config=self._config,
            tokens=tokens,
            seen=max(tokens.values(), default=0),
            **more,
        )
