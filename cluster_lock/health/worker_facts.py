"""The process that does the work, if it is another one."""

from __future__ import annotations

from typing import Literal

from cluster_lock import clock

WorkerState = Literal["starting", "ready", "gone"]


class WorkerFacts:
    """`state`: begun, able to work, or ended. `pid`: while it runs, as far as it is known. `starts`: how many there
    were."""

    def __init__(self) -> None:
        self.state: WorkerState = "starting"
        self.pid: int | None = None
        self.starts = 0
        self._sign = clock.now()

    def change(self, state: WorkerState, pid: int | None) -> None:
        self.state = state
        self.hear()
        if state == "starting":
            self.starts += 1
        if state == "gone":
            self.pid = None
        elif pid is not None:
            self.pid = pid

    def hear(self) -> None:
        """A sign of life of its loop."""
        self._sign = clock.now()

    def silent_for(self) -> float:
        """Seconds since the last sign of life, if it should give some."""
        return clock.now() - self._sign if self.state == "ready" else 0.0
