"""Who else is there: from what the session hears anyway, and from one look at the contenders now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster_lock import clock
from cluster_lock.driver import Certified
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.session import Session
from cluster_lock.values import LEADER, STANDBY, Entry, Record

LOOK_EVERY = 10.0
"""Seconds. However many look at the page, the backend is asked for the contenders no more often."""
LONGEST = 200


class SessionPeers:
    """`Peers` of a session of this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._contenders: list[Record] = []
        self._looked = float("-inf")

    def leader(self, name: str) -> Mapping[str, Any] | None:
        entry = self._session.context.watch.entries.get(LEADER + name)
        if entry is None or entry.lease is None:
            return None
        record = Record.from_bytes(entry.record or b"")
        who = _described(record) if record is not None else {"instance": "unknown"}
        giver = record.handed_over_by if record is not None else None
        return {**who, "term": self._session.context.identity.fencing_floor + entry.index, "handed_over_by": giver}

    def standbys(self, name: str) -> Sequence[Mapping[str, Any]]:
        session, now = self._session, clock.now()
        if now - self._looked >= LOOK_EVERY and session.context.lease.current is not None:
            self._looked = now
            session.context.background.later(self._look())
        return [_described(record) for record in self._contenders if name in record.names]

    def certificates(self) -> Mapping[str, float]:
        driver = self._session.driver
        found = driver.certificates() if isinstance(driver, Certified) else {}
        return {name: validity.end for name, validity in found.items()}

    async def _look(self) -> None:
        try:
            entries = await self._session.context.driver.scan(STANDBY)
        except (BackendUnavailable, BackendRefused):
            return  # for a page: the next look comes soon, and the lease tells of the trouble
        self._contenders = sorted(filter(None, map(_record, entries)), key=lambda record: str(record.instance))


def _record(entry: Entry) -> Record | None:
    return Record.from_bytes(entry.record or b"") if entry.lease is not None else None


def _described(record: Record) -> dict[str, Any]:
    texts = {name: str(getattr(record, name) or "")[:LONGEST] for name in ("instance", "host", "since", "health")}
    return {**texts, "pid": record.pid if isinstance(record.pid, int) else None}
