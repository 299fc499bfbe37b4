"""Histories of the laboratory, made by hand: a good one, to be spoilt in one place."""

from __future__ import annotations

from chaos.history import Fault, History, Process

from cluster_lock.testing.telegram import BotKey, Delivery, Poll, Run, Update

BOT = BotKey(42)
TIMING = {
    "ttl": 4.0,
    "margin": 1.0,
    "stop_time": 0.6,
    "settle": 0.25,
    "invite": 0.5,
    "drain": 2.0,
    "request": 1.0,
    "freed": 4.0,
}


class MadeHistory:
    """`a` leads from 1 s to 3 s under token 5 and hands over to `b`, which leads until the end at 6 s under token 9.
    Each handles one update of chat 1."""

    def __init__(self) -> None:
        self.history = History("etcd35", 7, TIMING, 0.0, 4.0, 4.5, 6.0, [], [], [], [], [], [])
        self.a, self.b = (self.process(client) for client in ("a#1", "b#2"))
        self.began(self.a, 1.0, 5, "found free")
        self.role(self.a, 1.0, 5)
        for at in (1.0, 1.5, 2.0, 2.5):
            self.poll(self.a, at, 5, deadline=at + 3)
        self.handled = self.update(100, seq=1)
        self.run(self.handled, self.a, 1.6, 1.7, 5)
        self.handled.acked = Delivery("a#1", 5, 2.0)
        self.ended(self.a, 3.0, 5)
        self.began(self.b, 3.1, 9, "handed over")
        self.role(self.b, 3.1, 9)
        for number in range(6):
            self.poll(self.b, 3.1 + number / 2, 9, deadline=6.1 + number / 2)
        self.second = self.update(101, seq=2)
        self.run(self.second, self.b, 3.3, 3.4, 9)
        self.second.acked = Delivery("b#2", 9, 3.6)
        self.ended(self.b, 6.0, 9)

    def process(self, client: str) -> Process:
        made = Process(client, 4, 0.5, None, None, [])
        self.history.processes.append(made)
        return made

    def role(self, process: Process, at: float, term: int) -> None:
        process.events.append({"kind": "role", "at": at, "role": "leader", "term": term, "deadline": at + 3})

    def began(self, process: Process, at: float, term: int, origin: str) -> None:
        process.events.append({"kind": "began", "at": at, "term": term, "origin": origin, "deadline": at + 3})

    def ended(self, process: Process, at: float, term: int, lost: str | None = None) -> None:
        process.events.append({"kind": "ended", "at": at, "term": term, "lost": lost, "deadline": at + 3})

    def poll(
        self,
        process: Process,
        at: float,
        term: int | None,
        *,
        deadline: float | None,
        lasts: float = 0.4,
        late: float = 0.0,
    ) -> Poll:
        """A getUpdates that was sent at `at`, arrived `late`, and was answered."""
        number = len(process.events)
        sent = {"kind": "write", "at": at, "request": number, "term": term, "deadline": deadline}
        over = {"kind": "answer", "at": at + late + lasts, "request": number}
        process.events += [sent, over]
        made = Poll(BOT, process.client, at + late, term, at, at + late + lasts, "answered", 200)
        self.history.polls.append(made)
        return made

    def update(self, number: int, seq: int, chat: int = 1) -> Update:
        made = Update(BOT, number, chat, seq, 0.9 + seq / 10)
        self.history.updates.append(made)
        return made

    def run(self, update: Update, process: Process, start: float, end: float, term: int, until: float = 8.0) -> Run:
        """A handler that came to its end. `until`: its deadline."""
        made = Run(process.client, term, start, end, "ok")
        update.runs.append(made)
        for at, outcome in ((start, None), (end, "ok")):
            facts = {"update": update.update_id, "term": term, "start": start, "outcome": outcome, "deadline": until}
            process.events.append({"kind": "run", "at": at, **facts})
        return made

    def fault(self, name: str, began: float, ended: float, **more: object) -> Fault:
        made = Fault(name, "leader", began, ended, **more)  # type: ignore[arg-type]
        self.history.faults.append(made)
        return made
