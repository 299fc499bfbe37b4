"""What Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.health import LOCK, leader_board, own_time, poller, renew, standby_board

from cluster_lock.health import Board
from cluster_lock.health.buckets import Buckets
from cluster_lock.health.metrics import scraper
from cluster_lock.health.totals import KINDS
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason, Origin


def scraped(board: Board) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and the values of its labels."""
    body, content_type = scraper(board)("text/plain")
    assert content_type.startswith("text/plain")
    return {
        (sample.name.removeprefix("cluster_lock_"), tuple(sample.labels[name] for name in sorted(sample.labels))): (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_the_whole_life_of_a_term() -> None:
    """Role, lease, renewals, transitions and both durations stand there with their values."""
    with own_time() as pass_time:
        board = leader_board(token=17)
        pass_time(5)
        renew(board, took=0.003)
        board.pollers.tell([poller()])
        pass_time(2)
        found = scraped(board)
        assert found["is_leader", (LOCK,)] == 1
        assert found["role", (LOCK, "leader")] == 1
        assert found["role", (LOCK, "standby")] == 0
        assert found["term", (LOCK,)] == 17
        assert found["term_age_seconds", (LOCK,)] == 7
        assert found["lease_remaining_seconds", ()] == 10
        assert found["lease_ttl_seconds", ()] == 15
        assert found["renewals_total", ("renewed",)] == 1
        assert found["renew_seconds_count", ()] == 1
        assert found["renew_seconds_bucket", ("0.0025",)] == 0
        assert found["renew_seconds_bucket", ("0.005",)] == 1
        assert found["transitions_total", (LOCK, "handed_over", "leader")] == 1
        assert found["takeover_seconds_sum", (LOCK, "handed_over")] == 5
        board.step_down_began(LOCK, "SIGTERM", "web-2")
        pass_time(0.5)
        board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), Ending.HANDED_OVER, "web-2")
        found = scraped(board)
        assert found["is_leader", (LOCK,)] == 0
        assert ("term", (LOCK,)) not in found
        assert found["transitions_total", (LOCK, "stopped", "standby")] == 1
        assert found["handover_seconds_sum", (LOCK,)] == 0.5


def test_updates_conflicts_and_errors() -> None:
    """Each bot's counters are there by what became of the updates and by the kind of failed poll."""
    with own_time():
        board = leader_board(worker=True)
        board.worker_changed("starting", 5)
        board.worker_changed("ready", 5)
        errors = {"network": 3, "conflict": 4}
        early = {"confirmed_early": 4, "early_running": 3}
        board.pollers.tell([poller(handled=10, failed=2, redelivered=5, errors=errors, storm=True, pending=9, **early)])
        found = scraped(board)
        assert found["updates_total", ("42", "handled")] == 10
        assert found["updates_total", ("42", "failed")] == 2
        assert found["updates_total", ("42", "redelivered")] == 5
        assert found["poll_errors_total", ("42", "network")] == 3
        assert found["conflicts_total", ("42",)] == 4
        assert found["conflict_storm", ("42", LOCK)] == 1
        assert found["updates_pending", ("42", LOCK)] == 9
        assert found["updates_early_running", ("42", LOCK)] == 3
        assert found["worker_starts_total", ()] == 1
        assert (found["ready", ()], found["live", ()]) == (0, 1)


def test_a_standby_scrapes_too() -> None:
    """A process that leads nothing and has no lease answers with zeros, and says that it is not ready."""
    with own_time():
        found = scraped(Board("web-1"))
        assert (found["ready", ()], found["live", ()], found["lease_remaining_seconds", ()]) == (0, 1, 0)
        assert scraped(standby_board())["is_leader", (LOCK,)] == 0


def test_every_series_is_there_before_its_first_event() -> None:
    """A counter begins at 0, since no increase is seen of one that comes into being with 1; no value of a label has a
    space; the kinds of failures are those of the poller."""
    with own_time():
        board = standby_board()
        board.pollers.tell([poller(polling=False, polling_for=None)])
        before = scraped(board)
        assert {labels[1] for name, labels in before if name == "poll_errors_total"} == {*KINDS}
        assert before["conflicts_total", ("42",)] == 0
        for to, reason in (("leader", "found_free"), ("standby", "lost_not_renewed"), ("standby", "step_down")):
            assert before["transitions_total", (LOCK, reason, to)] == 0
        board.term_began(LOCK, 1, Origin.FOUND_FREE)
        board.term_ended(
            LOCK, EndReason("the lease was last renewed 1.5 s ago (ttl 15 s): x", EndCode.NOT_RENEWED), Ending.LOST
        )
        board.pollers.tell([poller(errors=dict.fromkeys(KINDS, 1))])
        after = scraped(board)
        assert {key for key in after if "total" in key[0]} == {key for key in before if "total" in key[0]}
        assert after["transitions_total", (LOCK, "lost_not_renewed", "standby")] == 1
        assert not any(" " in label for name, labels in after for label in labels if name != "info")


def test_labels_do_not_grow() -> None:
    """However many losses with however many texts, the number of series stays the same."""
    with own_time():
        board = standby_board()
        sizes = set()
        for number in range(50):
            board.term_began(LOCK, number, Origin.FOUND_FREE)
            board.term_ended(
                LOCK,
                EndReason(f"the lease was last renewed {number}.5 s ago (ttl 15 s): x{number}", EndCode.NOT_RENEWED),
                Ending.LOST,
            )
            sizes.add(len(scraped(board)))
        assert len(sizes) == 1


def test_open_metrics_if_asked() -> None:
    """A scraper that asks for OpenMetrics gets it."""
    body, content_type = scraper(leader_board())("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(("value", "bucket"), [(0.5, "1"), (1.0, "1"), (1.5, "2"), (9.0, "+Inf")])
def test_buckets_are_up_to_and_with(value: float, bucket: str) -> None:
    """A value on a bound belongs below it."""
    times = Buckets((1.0, 2.0))
    times.add(value)
    assert next(name for name, count in times.cumulative() if count) == bucket
    assert (times.count, times.sum) == (1, value)
