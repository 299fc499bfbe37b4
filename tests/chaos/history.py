"""What a round leaves: what Telegram saw, what each process wrote down, what was done to them. All times are the boot
clock of the one machine; the checker reads nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Self

from cluster_lock.testing.telegram import Poll, Run, Update
from cluster_lock.testing.telegram.bot_key import BotKey
from cluster_lock.testing.telegram.history import Delivery

Json = dict[str, Any]
Span = tuple[float, float]


@dataclass(slots=True)
class Fault:
    """One thing that was done. `client`: the process that it was done to, if it was one."""

    name: str
    on: str
    began: float
    ended: float
    client: str | None = None
    excuses: list[str] = field(default_factory=list)
    """Checks whose findings are counted apart in a round with this fault: what nobody can make safe."""
    detail: str = ""
    stops: bool = False
    """The process stood still meanwhile (SIGSTOP)."""
    leaderless: bool = False
    """Nobody can lead as long as it lasts."""
    silent: float = 0.0
    """Seconds after its end in which the store gives nothing away."""
    harmless: bool = False
    """It takes the lease from nobody."""
    to_worker: bool = False
    """Its keeper was spared."""


@dataclass(slots=True)
class Process:
    """One life of a bot, by its diary. `ended`, `code`: None while it ran at the end of the round."""

    client: str
    host: int
    started: float
    ended: float | None
    code: int | None
    events: list[Json]

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["kind"] == kind]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to Telegram, by the word of its sender. `over`: when it gave up waiting, or had the answer."""

    client: str
    sent: float
    term: int | None
    deadline: float | None
    over: float


@dataclass(slots=True)
class Work:
    """What one process did under one token: from its first getUpdates or handler to the end of its last."""

    client: str
    term: int
    began: float
    ended: float
    last: str


@dataclass
class History:
    backend: str
    seed: int
    timing: Mapping[str, float]
    """Of the lock; and `freed`, the seconds until that of one who is silent is free."""
    began: float
    healed: float
    recovered: float | None
    """When everybody was well again; None: not in the time that was given."""
    ended: float
    faults: list[Fault]
    processes: list[Process]
    polls: list[Poll]
    updates: list[Update]
    stands: list[Json]
    """What stood under the lock's key, each time that it had changed: at, lease, index; of some backends also `holder`,
    the process by its own word, and `given`: a leader gave it to that one."""
    leaked: list[str]
    """Leases and records that were left when every process had stopped and a ttl had passed."""
    unwell: str = ""
    """Who was not well at the end, if anybody was not."""
    stray: list[str] = field(default_factory=list)
    """Errors of the laboratory itself: such a round proves nothing."""
    keepers: list[Json] = field(default_factory=list)
    """Those that ended: name, at, code."""

    # -- the file

    def save(self, path: Path) -> None:
        plain = asdict(self)
        for record in (*plain["polls"], *plain["updates"]):
            record["bot"] = str(record["bot"])
        path.write_text(json.dumps(plain))

    @classmethod
    def load(cls, path: Path) -> Self:
        plain: Json = json.loads(path.read_text())
        plain["faults"] = [Fault(**fault) for fault in plain["faults"]]
        plain["processes"] = [Process(**process) for process in plain["processes"]]
        plain["polls"] = [poll_of(poll) for poll in plain["polls"]]
        plain["updates"] = [update_of(update) for update in plain["updates"]]
        return cls(**plain)

    # -- reading

    @cached_property
    def requests(self) -> list[Request]:
        """Every request of every bot that was written, in the order of writing."""
        found = []
        for process in self.processes:
            overs = {event["request"]: event["at"] for event in process.events if event["kind"] in ("answer", "gone")}
            for event in process.of("write"):
                over = min(overs.get(event["request"], inf), self.death(process.client))
                found.append(Request(process.client, event["at"], event["term"], event["deadline"], over))
        return sorted(found, key=lambda request: request.sent)

    @cached_property
    def _by_moment(self) -> dict[tuple[str, str], Request]:
        return {(request.client, f"{request.sent:.6f}"): request for request in self.requests}

    def request_of(self, poll: Poll) -> Request | None:
        """What its sender wrote down of this getUpdates."""
        return None if poll.sent is None else self._by_moment.get((poll.client, f"{poll.sent:.6f}"))

    def death(self, client: str) -> float:
        """When its process ended; infinite while it runs."""
        return next((p.ended for p in self.processes if p.client == client and p.ended is not None), inf)

    def frozen(self, client: str) -> list[Span]:
        """When its process stood still."""
        return [(fault.began, fault.ended) for fault in self.faults if fault.stops and fault.client == client]

    def live(self, poll: Poll) -> list[Span]:
        """When this getUpdates could bring an update to a process that waits for it and runs."""
        request = self.request_of(poll)
        over = request.over if request is not None else None
        ends = [end for end in (poll.ended, over, self.death(poll.client), poll.evicted) if end is not None]
        span = poll.arrived, min(ends)
        return list(without(span, self.frozen(poll.client)))

    @cached_property
    def pieces(self) -> list[Work]:
        """All that was done: each getUpdates and each handler, without the time in which its process stood still."""
        found = []
        for poll in self.polls:
            found += [Work(poll.client, poll.term or 0, *span, "getUpdates") for span in self.live(poll)]
        for run in self.runs:
            end = min(run.end or inf, self.death(run.client), self.ended)
            for span in without((run.start, end), self.frozen(run.client)):
                found.append(Work(run.client, run.term or 0, *span, "a handler"))
        return found

    @cached_property
    def works(self) -> list[Work]:
        """All that was done under each token, in the order of the tokens."""
        done: dict[tuple[str, int], list[Work]] = defaultdict(list)
        for piece in self.pieces:
            if piece.term or piece.last != "getUpdates":
                done[piece.client, piece.term].append(piece)
        works = []
        for (client, term), pieces in done.items():
            last = max(pieces, key=lambda piece: piece.ended)
            began, ended = min(piece.began for piece in pieces), min(last.ended, self.ended)
            works.append(Work(client, term, began, ended, last.last))
        return sorted(works, key=lambda work: (work.term, work.began))

    @property
    def runs(self) -> Iterator[Run]:
        return (run for update in self.updates for run in update.runs)


def without(span: Span, holes: list[Span]) -> Iterator[Span]:
    """What is left of a span of time."""
    start, end = span
    for began, ended in sorted(holes):
        if ended <= start or began >= end:
            continue
        if began > start:
            yield start, began
        start = ended
    if start < end:
        yield start, end


def poll_of(plain: Json) -> Poll:
    """A poll, from what the simulator tells of it."""
    names = Poll.__dataclass_fields__
    return Poll(**{key: value for key, value in plain.items() if key in names} | {"bot": BotKey.of(plain["bot"])})


def update_of(plain: Json) -> Update:
    """An update, from what the simulator tells of it."""
    made = Update(**plain | {"bot": BotKey.of(plain["bot"])})
    made.delivered = [Delivery(**delivery) for delivery in plain["delivered"]]
    made.acked = Delivery(**plain["acked"]) if plain["acked"] else None
    made.runs = [Run(**run) for run in plain["runs"]]
    return made
