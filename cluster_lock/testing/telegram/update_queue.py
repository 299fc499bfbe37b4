"""One bot's queue of updates, with the rules of tdlib's TQueue (td/tddb/td/db/TQueue.cpp)."""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

MAX_ID = 2_000_000_000  # TQueue.h: EventId::MAX_ID
FIRST_ID = 2_000_001  # TQueue.cpp:159-179: the first id is random in [FIRST_ID, MAX_ID / 2]
MAX_EVENTS = 100_000
MAX_EVENT_BYTES = 512 * 1024
MAX_TOTAL_BYTES = 128 * 1024 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024  # Client.cpp:16301-16319, JsonUpdates
_ANSWER_OVERHEAD = 50  # the same place: what an update costs beside its text


class StoredUpdate(NamedTuple):
    update_id: int
    text: str
    size: int
    expires_at: float


class UpdateQueue:
    """Updates in order of their ids. Every method that removes some returns their ids, for the caller that keeps the
    books."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._entries: deque[StoredUpdate] = deque()
        self._bytes = 0
        self.tail = 0
        """The id of the next update; 0 before the first one."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def head(self) -> int:
        """The id of the oldest update; of the next one when there is none."""
        return self._entries[0].update_id if self._entries else self.tail

    def refuses(self, body: str) -> bool:
        """True when a new update would be dropped: too long, or the queue is full (TQueue.cpp:86-88, 149-154)."""
        size = len(body)
        return size > MAX_EVENT_BYTES or len(self._entries) >= MAX_EVENTS or self._bytes > MAX_TOTAL_BYTES - size

    def push(self, body: str, expires_at: float) -> int:
        """Append the update `body` ('"message":{...}'), which is not refused and has an id left."""
        if self.tail == 0:
            self.tail = self._random.randint(FIRST_ID, MAX_ID // 2)
        update_id = self.tail
        self.tail += 1
        text = f'{{"update_id":{update_id},\n{body}}}'
        self._entries.append(StoredUpdate(update_id, text, len(body), expires_at))
        self._bytes += len(body)
        return update_id

    def is_out_of_ids(self) -> bool:
        """True when the next push must renumber: the successor of the last id would not be a valid one."""
        return self.tail + 1 >= MAX_ID

    def renumber(self, first_id: int = 0) -> list[int]:
        """Start again at `first_id` (0: a random one). What is still in the queue is forgotten (TQueue.cpp:171-176)."""
        gone = self.clear()
        self.tail = first_id
        return gone

    def knows(self, offset: int) -> bool:
        """False for an offset out of range: that is served from the head, nothing is forgotten (TQueue.cpp:304-309)."""
        return self.head - MAX_EVENTS <= offset <= self.tail + 10

    def forget_below(self, offset: int) -> list[int]:
        """Remove everything with an id below `offset`: this is what acknowledges updates."""
        entries = self._entries
        gone: list[int] = []
        while entries and entries[0].update_id < offset:
            entry = entries.popleft()
            self._bytes -= entry.size
            gone.append(entry.update_id)
        return gone

    def clear(self, keep: int = 0) -> list[int]:
        """Remove all but the newest `keep`."""
        surplus = len(self._entries) - keep
        if surplus <= 0:
            return []
        return self.forget_below(self._entries[surplus].update_id if keep > 0 else self.tail)

    def take(self, limit: int, now: float) -> tuple[list[StoredUpdate], list[int]]:
        """The first `limit` updates that fit an answer, and the ids of expired ones that were met and removed."""
        ready: list[StoredUpdate] = []
        expired: list[int] = []
        left = MAX_ANSWER_BYTES
        for entry in self._entries:
            if entry.expires_at < now:
                expired.append(entry.update_id)
                continue
            left -= _ANSWER_OVERHEAD + entry.size
            if len(ready) == limit or left <= 0:
                break
            ready.append(entry)
        if expired:
            self._remove(set(expired))
        return ready, expired

    def _remove(self, ids: set[int]) -> None:
        self._entries = deque(entry for entry in self._entries if entry.update_id not in ids)
        self._bytes = sum(entry.size for entry in self._entries)
