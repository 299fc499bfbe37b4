"""What the page is told of who leads and who waits."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from support.health import LOCK, leader_board, own_time, standby_board

from cluster_lock.health import Board
from cluster_lock.health.document import document, health
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason


def described(instance: str, pid: int, **more: Any) -> dict[str, Any]:
    return {"instance": instance, "host": socket.gethostname(), "pid": pid, "since": None, **more}


class Seen:
    """What the backend shows, which is some seconds old."""

    def __init__(self, leader: Mapping[str, Any] | None, *standbys: Mapping[str, Any]) -> None:
        self._leader, self._standbys = leader, standbys

    def leader(self, name: str) -> Mapping[str, Any] | None:
        return self._leader

    def standbys(self, name: str) -> Sequence[Mapping[str, Any]]:
        return self._standbys

    def certificates(self) -> Mapping[str, float]:
        return {}


def lock_of(board: Board) -> dict[str, Any]:
    (lock,) = document(board)["locks"]
    return dict(lock)


def test_who_leads_does_not_stand_by() -> None:
    """A leader is not shown as its own standby; another process of the same instance's name is."""
    with own_time():
        board = leader_board("web-1")
        board.peers = Seen(None, described("web-1", os.getpid()), described("web-1", 1), described("web-2", 2))
        assert [(each["instance"], each["pid"]) for each in lock_of(board)["standbys"]] == [("web-1", 1), ("web-2", 2)]
        board = standby_board("web-3")
        board.peers = Seen(described("web-2", 2, term=5), described("web-2", 2), described("web-3", os.getpid()))
        assert [each["instance"] for each in lock_of(board)["standbys"]] == ["web-3"]


def test_a_process_is_not_told_of_its_own_term_that_is_over() -> None:
    """What the store still shows of a term of this process that was lost is no leader."""
    with own_time():
        board = leader_board("web-1")
        board.peers = Seen(described("web-1", os.getpid(), term=17))
        assert lock_of(board)["leader"]["ours"]
        board.lease_lost("the lease was last renewed 11.0 s ago (ttl 15 s): no answer")
        board.term_ended(
            LOCK,
            EndReason("the lease was last renewed 11.0 s ago (ttl 15 s): no answer", EndCode.NOT_RENEWED),
            Ending.LOST,
        )
        assert lock_of(board)["leader"] is None
        assert health(board)["leader"] is None


def test_a_term_has_its_whole_length() -> None:
    """A term of another one that began before we looked is shown with all of its time."""
    with own_time() as pass_time:
        board = standby_board("web-1")
        began = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
        board.peers = Seen(described("web-2", 2, term=5, since=began))
        board.look_around()
        pass_time(10)
        board.peers = Seen(None)
        board.look_around()
        (term,) = lock_of(board)["history"]
        assert 110 <= term["seconds"] < 130


def test_what_was_true_then_has_its_time() -> None:
    """A trouble that speaks of seconds says when that was."""
    with own_time():
        board = leader_board()
        board.lease_lost("the lease was last renewed 11.0 s ago (ttl 15 s): no answer")
        shown = document(board)
        assert re.search(r"11\.0 s ago .*\(at \d\d:\d\d:\d\d UTC\)$", shown["reasons"][0])
        assert datetime.fromisoformat(shown["lease"]["trouble_at"])
