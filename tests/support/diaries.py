"""The diaries of `support.diary_bot`, as a test reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from cluster_lock.testing.telegram import SimulatorControl

Json = dict[str, Any]


class DiaryReader:
    """What one process wrote down. `client` is what the simulator calls it.

    Each look reads on from where the last one ended: a diary grows by hundreds of lines a second, and the processor
    belongs to the bots.
    """

    def __init__(self, client: str, path: Path) -> None:
        self.client = client
        self._path = path
        self._read = 0
        self._events: list[Json] = []
        self._kinds: dict[str, list[Json]] = defaultdict(list)
        self._told = 0

    def events(self, kind: str | None = None, since: float = 0.0) -> list[Json]:
        """What it wrote down so far, of this kind and later than `since`."""
        self._read_on()
        events = self._events if kind is None else self._kinds[kind]
        return [event for event in events if event["at"] > since]

    @property
    def now(self) -> Json:
        """Its latest word about its role: `role` ("leader", "standby", or "starting" before the first), `term`,
        `deadline`."""
        self._read_on()
        roles = self._kinds["role"]
        return roles[-1] if roles else {"role": "starting", "term": None, "deadline": None}

    async def tell(self, telegram: SimulatorControl) -> None:
        """Report to the oracle each run and each end of a term that it does not know of yet."""
        self._read_on()
        news, self._told = self._events[self._told :], len(self._events)
        # Of a run its latest word is enough: the end, if it came to one.
        runs = {(event["update"], event["start"]): event for event in news if event["kind"] == "run"}
        await telegram.handled_many([self._run(event) for event in runs.values()])
        for event in news:
            if event["kind"] == "ended":
                at = event["at"] if event["lost"] is None else event["deadline"]
                await telegram.term_ended(self.client, event["term"], at=at)

    def _run(self, event: Json) -> Json:
        return {
            "update_id": event["update"],
            "client": self.client,
            "start": event["start"],
            "end": None if event["outcome"] is None else event["at"],
            "outcome": event["outcome"],
            "term": event["term"],
        }

    def _read_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        # The last line may be there in part only, at this moment.
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            event: Json = json.loads(line)
            self._events.append(event)
            self._kinds[event["kind"]].append(event)
