"""Real servers that are restored from a snapshot, or that take no writes any more, under those who lead and wait."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from support.aio import run, until
from support.drills import drill

from cluster_lock.driver import Driver
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.election import Election, Term
from cluster_lock.health import Board
from cluster_lock.health.verdict import why_not_ready
from cluster_lock.lease.guard import NoGuard
from cluster_lock.session import Session
from cluster_lock.testing.servers import ConsulServer, EtcdServer, ServerFailed
from cluster_lock.values import Timing

TIMING = Timing(ttl=3.0, margin=1.0, stop_time=0.4, drain=0.5, cancel_grace=0.3)


@pytest.mark.consul
@pytest.mark.parametrize(("point", "hands"), [("free", 1), ("leading", 1), ("handed over", 2)])
def test_a_consul_that_is_restored(point: str, hands: int) -> None:
    """After a snapshot is restored into a running Consul somebody leads soon, or everybody has said why nobody may, and
    no token is led on that is not above all before it."""
    with ConsulServer(fast=True) as server:

        def make(timing: Timing) -> Driver:
            return ConsulDriver([server.url], request_timeout=timing.request)

        run(drill(server, make, point, hands=hands)).check()


@pytest.mark.etcd
@pytest.mark.parametrize("bump", [0, 1_000_000_000])
@pytest.mark.parametrize(("point", "hands"), [("leading", 1), ("handed over", 2)])
def test_an_etcd_that_is_restored(point: str, hands: int, bump: int) -> None:
    """The same for an etcd that comes back from a snapshot; with `--bump-revision` somebody leads in any case."""
    with EtcdServer(release="3.5", fast=True) as server:

        def make(timing: Timing) -> Driver:
            return EtcdDriver(server.endpoints, request_timeout=timing.request)

        outcome = run(drill(server, make, point, hands=hands, bump=bump))
        outcome.check()
        assert outcome.leads or not bump


@pytest.mark.etcd
def test_an_etcd_that_takes_no_writes(caplog: pytest.LogCaptureFixture) -> None:
    """A leader that steps down while etcd is full does not say that it released the lock, and its lease is revoked; a
    standby that cannot take the free lock says so, is not ready, and leads when there is room again."""
    caplog.set_level(logging.INFO)

    async def work(term: Term) -> None:
        await term.wait_step_down()

    async def main(server: EtcdServer) -> None:
        board = Board("b")
        drivers = [EtcdDriver(server.endpoints, request_timeout=TIMING.request) for _ in range(2)]
        async with (
            Session(drivers[0], instance="a", timing=TIMING, guard=NoGuard()) as a,
            Session(drivers[1], instance="b", timing=TIMING, guard=NoGuard(), observer=board) as b,
        ):
            leader, standby = Election(a), Election(b)
            leading = asyncio.ensure_future(leader.lead("x", work))
            await until(lambda: leader.term("x") is not None)
            waiting = asyncio.ensure_future(standby.lead("x", work))
            await until(lambda: "x" in b.context.contender)
            await asyncio.to_thread(fill, server)
            leader.stop("test")
            await leading
            await until(lambda: any("cannot be taken" in reason for reason in why_not_ready(board)))
            assert "lock released" not in caplog.text
            assert "could not be released within a ttl" in caplog.text
            await asyncio.to_thread(make_room, server)
            await until(lambda: standby.term("x") is not None)
            standby.stop("test")
            await waiting

    with EtcdServer(release="3.5", fast=True, quota=2 * 1024 * 1024) as server:
        run(main(server))


def fill(server: EtcdServer) -> None:
    """Until it refuses."""
    with suppress(ServerFailed):
        for number in range(100):
            server.ctl("put", f"junk{number}", "x" * 100_000)
        pytest.fail("etcd took all of it")


def make_room(server: EtcdServer) -> None:
    server.ctl("del", "--prefix", "junk")
    revision = next(
        line.split(":")[1] for line in server.ctl("get", "x", "-w", "fields").splitlines() if "Revision" in line
    )
    server.ctl("compact", revision.strip())
    server.ctl("defrag")
    server.ctl("alarm", "disarm")
