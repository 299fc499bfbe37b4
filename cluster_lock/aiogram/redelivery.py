"""Which updates of a term may have been handled before, in part or whole: handlers may ask for `redelivered`."""

from __future__ import annotations

from collections.abc import Collection

from cluster_lock.election import Term
from cluster_lock.values import Origin


class Redelivery:
    """A leader that hands over says whose handlers it has cut off. Of any other, which may have crashed, nobody knows:
    then it may be all that the first answer of the term brings, since no more was ever unconfirmed."""

    def __init__(self, term: Term) -> None:
        told = term.inherited.get("cut_off", [])
        self._may_be_short = False
        self._unknown = term.origin is not Origin.HANDED_OVER or not isinstance(told, list)
        self._before: set[int] = set() if self._unknown else {each for each in told if isinstance(each, int)}

    def failed(self) -> None:
        """A getUpdates was not answered. Who asks the same soon after that gets a single update (Client.cpp:15714)."""
        self._may_be_short = True

    def answered(self, update_ids: Collection[int]) -> None:
        """Telegram has answered with these."""
        if self._unknown:
            self._before.update(update_ids)
            self._unknown = self._may_be_short and len(update_ids) == 1
        self._may_be_short = False

    def __contains__(self, update_id: int) -> bool:
        return update_id in self._before
