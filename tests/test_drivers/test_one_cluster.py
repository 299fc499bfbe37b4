"""When do endpoints count as one cluster? In a time of our own, without servers."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import pytest

from cluster_lock import clock
from cluster_lock.drivers.shared.one_cluster import OneCluster, OtherCluster
from cluster_lock.errors import BackendRefused, BackendUnavailable

TTL = 15.0


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Iterator[Time]:
    time = Time()
    with clock.replaced(time):
        yield time


def endpoints(*names: str) -> OneCluster[int]:
    return OneCluster("x", names, operator.eq, str)


def asked(cluster: OneCluster[int], time: Time, *members: str, **told: int) -> None:
    """All endpoints were asked, and these told a cluster."""
    since = time.now
    for endpoint, which in told.items():
        try:
            cluster.heard(endpoint, which)
        except OtherCluster:
            continue
    cluster.judge(since, TTL, members)


def test_more_than_half_must_have_answered(time: Time) -> None:
    """Two of three are enough, one of two is not, until a ttl has passed; so no two instances begin on two clusters."""
    asked(endpoints("a", "b", "c"), time, a=1, b=1)
    waiting = endpoints("a", "b")
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="no lease yet: b did not answer"):
            asked(waiting, time, a=1)
        time.now += TTL / 3.01
    time.now += 1
    asked(waiting, time, a=1)
    asked(waiting, time, a=1)


def test_members_that_are_down_are_known(time: Time) -> None:
    """One of three is enough if the cluster calls the others its own; it is not if one of them is a stranger."""
    asked(endpoints("a", "b", "c"), time, "a", "b", "c", a=1)
    with pytest.raises(BackendUnavailable, match="no lease yet: c did not answer"):
        asked(endpoints("a", "b", "c"), time, "a", "b", a=1)


def test_nobody_answers(time: Time) -> None:
    """Silence of all decides nothing: the task that asks for the lease is told more."""
    asked(endpoints("a", "b"), time)


def test_two_clusters_within_a_ttl(time: Time) -> None:
    """Two clusters are refused while both have answered within a ttl, also behind one endpoint; then one is left."""
    for names in (("a", "b"), ("a",)):
        cluster = endpoints(*names)
        asked(cluster, time, **dict.fromkeys(names, 1))
        with pytest.raises(OtherCluster):
            cluster.heard(names[-1], 2)
        assert cluster.in_doubt
        with pytest.raises(BackendRefused, match="2 clusters"):
            cluster.check()
        time.now += TTL / 2
        with pytest.raises(BackendRefused, match="2 clusters"):
            asked(cluster, time, a=1)
        time.now += TTL / 2 + 1
        asked(cluster, time, a=1)
        cluster.heard("a", 1)
        cluster.check()


def test_the_other_cluster_becomes_ours(time: Time) -> None:
    """What answers when ours has said nothing for a ttl is ours from then on, and ours from before is the stranger."""
    cluster = endpoints("a", "b")
    asked(cluster, time, a=1, b=1)
    time.now += TTL + 1
    with pytest.raises(OtherCluster):
        cluster.heard("a", 2)
    asked(cluster, time, a=2)
    assert cluster.knows("a")
    with pytest.raises(OtherCluster):
        cluster.heard("b", 1)


def test_what_was_told_is_true_for_a_ttl(time: Time) -> None:
    """An endpoint is known for one ttl after it told its cluster."""
    cluster = endpoints("a", "b")
    asked(cluster, time, a=1, b=1)
    time.now += TTL - 1
    assert cluster.knows("a")
    time.now += 2
    assert not cluster.knows("a")
