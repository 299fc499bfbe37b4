"""A grant that an acquire made or found, and what speaks against leading on its token."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.values import STANDBY, Grant, Origin, Record

from .context import Context
from .tokens import Evidence

log = logging.getLogger("cluster_lock.lock")


@dataclass(frozen=True, slots=True)
class Found:
    """`last`: the record that came with the grant, of the holder before or of the one who gave it to us; `last_word`:
    the same as it stood. `was_there`: it stood under our lease already, by no request of this wait."""

    grant: Grant
    origin: Origin
    last: Record | None
    last_word: bytes
    was_there: bool

    @property
    def inherited(self) -> Mapping[str, Any]:
        return self.last.handover if self.last is not None and self.origin is not Origin.FOUND_FREE else {}

    def evidence(self, name: str, token: int, known: Evidence) -> Evidence | None:
        """Why nobody may lead on `token`, by what is known and by what came with the grant."""
        if token <= known.token:
            return known
        said = self.last.known(name) if self.last is not None else 0
        return Evidence(said, f"{self.grant.name} (on etcd last/{name})", self.last) if token <= said else None


async def ask_contenders(context: Context, name: str, grant: Grant) -> Evidence | None:
    """Whether somebody who stands by knows of a larger token of the lock `name`. None, too, if they cannot be asked:
    the grant is as good as it was."""
    try:
        entries = await context.driver.scan(STANDBY)
    except (BackendUnavailable, BackendRefused) as error:
        log.debug("%s: contenders not asked for their tokens: %s", name, error)
        return None
    for entry in entries:
        record = Record.from_bytes(entry.record or b"")
        # One that was written after our grant may know of it, and of later ones: it says that the store went back
        # only if it knows of one that is later than itself.
        last = context.identity.fencing_floor + max(grant.index, entry.index)
        if record is not None and (knows := record.known(name)) >= last:
            return Evidence(knows, entry.name, record)
    return None
