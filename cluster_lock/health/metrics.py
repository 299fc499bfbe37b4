"""The board as Prometheus reads it: collected when it is scraped, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cluster_lock import clock
from cluster_lock.telegram.poller_state import gauges
from cluster_lock.values import EndCode, Origin

from .board import Board
from .buckets import Buckets
from .terms import TAKEOVER_BOUNDS, LockFacts
from .verdict import why_not_alive, why_not_ready

ROLES = "leader", "standby", "stopped"
ORIGINS = tuple(origin.value for origin in Origin)
TRANSITIONS = (*(("leader", origin) for origin in ORIGINS), *(("standby", label) for label in map(str, EndCode)))


def scraper(board: Board) -> Callable[[str], tuple[bytes, str]]:
    """A function that answers the metrics, and their content type, for an Accept header."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    ProcessCollector(registry=registry)

    def scrape(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return scrape


class BoardCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering collects nothing

    def collect(self) -> Iterator[Metric]:
        board = self._board
        identity = {name: str(value) for name, value in board.identity().items() if name != "pid"}
        yield InfoMetricFamily(
            "cluster_lock", "Who says this.", value={**identity, "backend": board.backend or "unknown"}
        )
        yield _gauge("live", "1 unless a restart is needed.", not why_not_alive(board))
        yield _gauge("ready", "1 if it leads well, or could take over.", not why_not_ready(board))
        yield from self._locks(list(board.locks.values()))
        yield from self._lease()
        yield self._certificates()
        yield from self._pollers()
        if board.worker is not None:
            yield _counter("worker_starts", "Worker processes that were started.", board.worker.starts)

    def _locks(self, locks: list[LockFacts]) -> Iterator[Metric]:
        leader = GaugeMetricFamily("cluster_lock_is_leader", "1 while this instance leads.", labels=["lock"])
        role = GaugeMetricFamily("cluster_lock_role", "1 for the role that it has.", labels=["lock", "role"])
        term = GaugeMetricFamily("cluster_lock_term", "The fencing token, while it leads.", labels=["lock"])
        age = GaugeMetricFamily("cluster_lock_term_age_seconds", "How long it has led.", labels=["lock"])
        transitions = CounterMetricFamily(
            "cluster_lock_transitions", "Terms begun (to=leader) and ended, by reason.", labels=["lock", "to", "reason"]
        )
        handover = HistogramMetricFamily(
            "cluster_lock_handover_seconds",
            "At the old leader: from the beginning of the step-down, drain and all, until the lock was given away.",
            labels=["lock"],
        )
        takeover = HistogramMetricFamily(
            "cluster_lock_takeover_seconds",
            "At the new leader: from the grant until the work (a bot: its first getUpdates), by how the lock was had.",
            labels=["lock", "origin"],
        )
        for lock in locks:
            leader.add_metric([lock.name], lock.leads)
            for name in ROLES:
                role.add_metric([lock.name, name], lock.role == name)
            if lock.term is not None:
                term.add_metric([lock.name], lock.term.term)
                age.add_metric([lock.name], clock.now() - lock.term.since)
            # Each there may be, from the beginning: what comes into being with its first event has no increase by it.
            for to, reason in sorted({*TRANSITIONS, *lock.transitions}):
                transitions.add_metric([lock.name, to, _word(reason)], lock.transitions[to, reason])
            _add(handover, [lock.name], lock.handovers)
            for origin in sorted({*ORIGINS, *lock.takeovers}):
                _add(takeover, [lock.name, _word(origin)], lock.takeovers.get(origin, Buckets(TAKEOVER_BOUNDS)))
        yield from (leader, role, term, age, transitions, handover, takeover)

    def _lease(self) -> Iterator[Metric]:
        lease = self._board.lease
        yield _gauge("lease_remaining_seconds", "Until the lease is not trusted any more.", lease.remaining())
        ttl = lease.timing.ttl if lease.timing is not None else 0.0
        yield _gauge("lease_ttl_seconds", "What the backend promised.", ttl)
        renewals = CounterMetricFamily(
            "cluster_lock_renewals", "Renewals: renewed, unsure (tried again) or lost.", labels=["result"]
        )
        for result in ("renewed", "unsure", "lost"):
            renewals.add_metric([result], lease.renewals[result])
        yield renewals
        times = HistogramMetricFamily("cluster_lock_renew_seconds", "How long a renewal took.", labels=[])
        _add(times, [], lease.renew_times)
        yield times

    def _certificates(self) -> Metric:
        ends = GaugeMetricFamily(
            "cluster_lock_certificate_end_timestamp_seconds",
            "When a certificate file that we show or trust ends, in seconds since 1970.",
            labels=["file"],
        )
        for name, end in sorted(self._board.peers.certificates().items()):
            ends.add_metric([name], end)
        return ends

    def _pollers(self) -> Iterator[Metric]:
        states = self._board.pollers.states()
        for field, gauge in gauges():
            family = GaugeMetricFamily(f"cluster_lock_{gauge.name}", gauge.text, labels=["lock", "bot"])
            for state in states:
                if state[field] is not None:
                    family.add_metric([state["lock"], str(state["bot_id"])], float(state[field]))
            yield family
        updates = CounterMetricFamily(
            "cluster_lock_updates", "Updates, by what became of them.", labels=["bot", "result"]
        )
        errors = CounterMetricFamily("cluster_lock_poll_errors", "Failed getUpdates, by kind.", labels=["bot", "kind"])
        conflicts = CounterMetricFamily("cluster_lock_conflicts", "Conflicts (409).", labels=["bot"])
        for bot, label, value in self._board.pollers.totals.of("updates"):
            updates.add_metric([str(bot), label], value)
        for bot, label, value in self._board.pollers.totals.of("errors"):
            errors.add_metric([str(bot), label], value)
            if label == "conflict":
                conflicts.add_metric([str(bot)], value)
        yield from (updates, errors, conflicts)


def _word(text: str) -> str:
    """As the value of a label: `found_free`."""
    return text.replace(" ", "_")


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"cluster_lock_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"cluster_lock_{name}", text, value=float(value))


def _add(family: HistogramMetricFamily, labels: list[str], times: Buckets) -> None:
    family.add_metric(labels, times.cumulative(), times.sum)
