"""What Telegram delivered and was not yet told to forget.

Telegram confirms by offset: a getUpdates that carries N deletes everything below N, at its receipt (telegram-bot-api
Client.cpp:16321, TQueue.cpp:432), whether or not its answer ever arrives. So the offset that goes out is the lowest
update that is not finished, in order of delivery, and everything from there on is delivered again by every answer.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from cluster_lock.election import Term
from cluster_lock.values import Origin

LIMIT = 100
"""Telegram returns at most so many updates from the offset on; what comes after them is out of sight."""
CROWDED = 80
"""With so many unconfirmed a window is about to fill; one that was full is full until there are fewer."""
REMEMBERED = 10 * LIMIT
"""Confirmed updates whose ids are known for a while: who heeds no offset delivers them again."""


class Delivered:
    """One update, from its delivery to its confirmation."""

    __slots__ = ("album", "began", "early", "finished", "repeated", "update_id")

    def __init__(self, update_id: int, *, finished: bool = False) -> None:
        self.update_id = update_id
        self.finished = finished
        self.repeated = False
        self.began = inf
        """When its handler started (`clock.now()`)."""
        self.early = False
        """Confirmed before its handler has ended."""
        self.album: Hashable = None
        """What the parts of one album have in common."""

    @property
    def has_begun(self) -> bool:
        return self.began < inf


class Window:
    """The updates from the offset on. `offset` and `finished` are what the leader before left: where to go on, and
    which updates above it are finished already."""

    def __init__(self, offset: int | None = None, finished: Iterable[int] = ()) -> None:
        self.sent: int | None = None
        """The highest offset of a getUpdates. What it confirms is confirmed, answered or not."""
        self.repeated = 0
        """Finished updates that were delivered again and recognised, each counted once."""
        self._asked: int | None = None
        self._answered: int | None = None
        """The offset of the latest getUpdates that was answered."""
        self._next = offset
        self._settled: deque[Delivered] = deque()
        """Finished with nothing unfinished before them: the next getUpdates confirms them."""
        self._order: deque[Delivered] = deque()
        """What comes after them, the lowest unfinished one first (or a part of its album)."""
        self._by_id: dict[int, Delivered] = {}
        self._finished_before = set(finished)
        self._confirmed: OrderedDict[int, None] = OrderedDict()
        """The latest of them, in that order."""
        self._pending = 0
        self._albums: Counter[Hashable] = Counter()
        """How many parts of each are unfinished."""

    @property
    def pending(self) -> int:
        """Delivered and not finished."""
        return self._pending

    @property
    def unconfirmed(self) -> int:
        """Delivered, and still to be delivered again by the next answer."""
        return len(self._order)

    def __len__(self) -> int:
        return len(self._settled) + len(self._order)

    @property
    def finished(self) -> set[int]:
        """What Telegram was not told of, although it is finished."""
        known = {known.update_id for known in (*self._settled, *self._order) if self._is_done(known)}
        return known | self._finished_before

    @property
    def cut_off(self) -> list[int]:
        """What comes again although its handler has begun, or even ended where the rest of its album has not."""
        return [known.update_id for known in self._order if known.has_begun and not self._is_done(known)]

    @property
    def is_full(self) -> bool:
        """Telegram shows nothing new until the lowest unfinished update is finished."""
        return self.unconfirmed >= LIMIT

    @property
    def is_crowded(self) -> bool:
        return self.unconfirmed >= CROWDED

    @property
    def lowest(self) -> Delivered | None:
        """The lowest unfinished update."""
        return next((known for known in self._order if not known.finished), None)

    @property
    def offset(self) -> int | None:
        """What the next getUpdates has to confirm up to: the lowest unfinished update; None before the first one of
        all."""
        return lowest_unfinished(self._settled, self._order, self._next)

    def ask(self) -> int | None:
        """The offset for a getUpdates that is sent now. What it confirms is forgotten here too: not earlier, because
        the answer to the getUpdates before may still repeat it.

        The same offset twice within half a second brings a single update (Client.cpp:15714). While something is
        unfinished every second one is lower by one: once the offset was answered nothing is left below it, so that asks
        for the same. Without an answer nobody knows that, and what is below would come again as if it were new.
        """
        self.sent = self._next = offset = self.offset
        while self._settled:
            confirmed = self._settled.popleft().update_id
            del self._by_id[confirmed]
            self._confirmed[confirmed] = None
        while len(self._confirmed) > REMEMBERED:
            self._confirmed.popitem(last=False)
        self._asked = offset - 1 if offset is not None and self._order and offset == self._answered else offset
        return self._asked

    def take(self, update_ids: Iterable[int]) -> list[Delivered]:
        """The updates of an answer that were not delivered before, in order."""
        ids = [update_id for update_id in update_ids if update_id not in self._confirmed]
        self._answered = self._asked
        if is_new_numbering(ids, self.sent):
            self._forget()
        new = []
        for update_id in ids:
            known = self._by_id.get(update_id)
            if known is None:
                known = Delivered(update_id, finished=update_id in self._finished_before)
                self._finished_before.discard(update_id)
                self._by_id[update_id] = known
                self._order.append(known)
                if not known.finished:
                    self._pending += 1
                    new.append(known)
            if known.finished and not known.repeated:
                known.repeated = True
                self.repeated += 1
        self._settle()
        return new

    def join(self, delivered: Delivered, album: Hashable) -> None:
        """It is a part of an album: none of those is confirmed or handed over as finished while another one is not, so
        that the next leader gets all of it."""
        delivered.album = album
        self._albums[album] += 1

    def finish(self, delivered: Delivered) -> bool:
        """It is handled, or given up. True if the offset moves on by that."""
        if delivered.finished:
            return False
        delivered.finished = True
        if self._by_id.get(delivered.update_id) is not delivered:  # it is of a numbering that is over
            return False
        self._pending -= 1
        if delivered.album is not None:
            self._albums -= Counter([delivered.album])
        return self._settle()

    def handover(self) -> dict[str, Any]:
        """For the next leader: where to go on, and which updates above it must not be handled again."""
        if self.offset is None:
            return {}
        offset = self.offset
        return {"offset": offset, "done": sorted(update_id for update_id in self.finished if update_id > offset)}

    def _is_done(self, known: Delivered) -> bool:
        return known.finished and (known.album is None or known.album not in self._albums)

    def _settle(self) -> bool:
        """True if the lowest unfinished update has become another one."""
        order, moved = self._order, False
        while order and order[0].finished and self._is_done(order[0]):
            self._settled.append(order.popleft())
            moved = True
        return moved

    def _forget(self) -> None:
        self._next = self._answered = None
        self._settled.clear()
        self._order.clear()
        self._by_id.clear()
        self._finished_before.clear()
        self._albums.clear()
        self._confirmed.clear()
        self._pending = 0


def lowest_unfinished(settled: Sequence[Delivered], order: Sequence[Delivered], otherwise: int | None) -> int | None:
    """The offset by the order of delivery, never by max(): an update above a slow one is not confirmed before it."""
    if order:
        return order[0].update_id
    return settled[-1].update_id + 1 if settled else otherwise


def is_new_numbering(update_ids: Iterable[int], sent: int | None) -> bool:
    """An id below the offset that was sent: Telegram began to number anew (after an idle week, or when the ids ran out,
    TQueue.cpp:159-179), found our offset out of range and served from its head. All that we know of ids is void."""
    return sent is not None and any(update_id < sent for update_id in update_ids)


def starting_window(term: Term, done: Iterable[int] = ()) -> Window:
    """Go on where a leader left off that stepped down. After one that was lost nobody knows; Telegram does. `done`:
    what is known to be finished all the same."""
    return Window(finished=done) if term.origin is Origin.FOUND_FREE else inherited_window(term.inherited, done)


def inherited_window(inherited: Mapping[str, Any], also: Iterable[int] = ()) -> Window:
    """The window that the leader before left, or an empty one. What does not look like ours is not believed: without an
    offset Telegram delivers everything unconfirmed, and nothing is lost. `also`: what else is finished."""
    offset, done = inherited.get("offset"), inherited.get("done", [])
    if not isinstance(offset, int) or offset <= 0 or not isinstance(done, list):
        return Window(finished=also)
    return Window(offset, {*also, *(update_id for update_id in done if isinstance(update_id, int))})
