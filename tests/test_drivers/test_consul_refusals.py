"""Agents of Consul that answer and refuse, whatever stands in front of them, and a cluster that changes."""

from __future__ import annotations

import json

import pytest
from support.aio import run
from support.consul_lab import HEIR, LOCK, Recorder, client, destroy, record, session_of, taken
from support.refusing import RefusingAgent
from support.two_clusters import granted

from cluster_lock import clock
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired, PermissionRefused
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.consul

REFUSALS = {
    "no route": ("404 Not Found", "404 page not found"),
    "unknown token": ("403 Forbidden", "ACL not found"),
    "no servers": ("500 Internal Server Error", "rpc error making call: EOF"),
    "not ready": ("500 Internal Server Error", "Missing node registration"),
    "log in": ("401 Unauthorized", "invalid session"),
    "redirect": ("308 Permanent Redirect", ""),
    "conflict": ("409 Conflict", "busy"),
    "denied in a transaction": ("409 Conflict", '{"Errors": [{"OpIndex": 0, "What": "Permission denied"}]}'),
    "a page": ("200 OK", "<html/>"),
}


def peers(server: ConsulServer) -> str:
    return json.dumps(server.request("GET", "/v1/status/peers"))


async def every_verb(driver: ConsulDriver) -> None:
    lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
    grant = await taken(driver, lease)
    position = (await driver.read([LOCK])).position
    await driver.renew(lease)
    await driver.announce(theirs, HEIR, record("b"))
    (heir,) = await driver.scan("standby/")
    assert await driver.transfer(grant, heir, record("b"))
    mine = await driver.acquire(theirs, LOCK, record("b"))
    assert mine is not None
    await driver.release(mine, record("b", released=True))
    assert (await driver.wait_changed([LOCK], position, 5.0)).entries[LOCK].lease is None
    await driver.withdraw(theirs, HEIR)
    await driver.revoke(lease)
    with pytest.raises(LeaseExpired):
        await driver.renew(lease)
    await driver.revoke(theirs)


# -- one agent refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("kind", REFUSALS)
async def test_who_refuses_is_passed_over(consul_server: ConsulServer, kind: str, first: bool) -> None:
    """Every verb works beside an agent of the same cluster that refuses, wherever that stands in the list; and it is
    asked only until another one has answered."""
    async with RefusingAgent(*REFUSALS[kind], peers=peers(consul_server)) as refusing:
        urls = [refusing.url, consul_server.url, consul_server.url.replace("127.0.0.1", "localhost")]
        async with client(*(urls if first else urls[::-1])) as driver:
            await every_verb(driver)
        assert len(refusing.asked) <= first, "it was preferred"


@pytest.mark.parametrize("kind", REFUSALS)
async def test_the_good_agent_is_asked_again(consul_server: ConsulServer, kind: str) -> None:
    """While the good agent is away the other one's refusals end nothing; the lease goes on when it is back."""
    async with (
        Recorder(consul_server) as good,
        RefusingAgent(*REFUSALS[kind], peers=peers(consul_server)) as refusing,
        client(good.url, refusing.url, request_timeout=2.0) as driver,
    ):
        lease = await driver.grant_lease("a", 30)
        grant = await taken(driver, lease)
        await good.refuse()
        for call in (driver.renew(lease), driver.read([LOCK]), driver.acquire(lease, LOCK, record("a"))):
            with pytest.raises(BackendUnavailable) as raised:
                await call
            assert good.url in str(raised.value)
            assert refusing.url in str(raised.value)
        await good.accept()
        await driver.renew(lease)
        assert (await driver.read([LOCK])).entries[LOCK].index == grant.index
        asked = len(refusing.asked)
        await driver.renew(lease)
        await driver.read([LOCK])
        assert len(refusing.asked) == asked


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("no route", "no route", BackendRefused),
        ("no route", "unknown token", PermissionRefused),
        ("unknown token", "no servers", BackendUnavailable),
        ("a page", "no route", BackendUnavailable),
    ],
)
async def test_a_refusal_is_what_all_say(
    consul_server: ConsulServer, one: str, other: str, kind: type[Exception]
) -> None:
    """A refusal is raised if all agents refuse, the most telling one; else it may pass."""
    same = peers(consul_server)
    async with (
        RefusingAgent(*REFUSALS[one], peers=same) as first,
        RefusingAgent(*REFUSALS[other], peers=same) as second,
        client(first.url, second.url) as driver,
    ):
        for call in (driver.read([LOCK]), driver.grant_lease("a", 30)):
            with pytest.raises((BackendRefused, BackendUnavailable)) as raised:
                await call
            assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("rpc error making call: No cluster leader", "most of its servers are down"),
        ("No known Consul servers", "this agent knows no server"),
        ("rpc error making call: leadership lost while committing log", "cannot write to its disk"),
        ("raft apply failed: write /consul/data: no space left on device", "the disk of a server is full"),
    ],
)
async def test_servers_that_cannot_write(body: str, says: str) -> None:
    """What servers say of their own state may pass, and the text tells what is the matter."""
    async with RefusingAgent("500 Internal Server Error", body) as agent, client(agent.url) as driver:
        with pytest.raises(BackendUnavailable, match=says):
            await driver.grant_lease("a", 30)


# -- gone is what Consul says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in REFUSALS if kind != "a page"])
async def test_a_lease_does_not_end_by_what_stands_in_front(consul_server: ConsulServer, kind: str) -> None:
    """Whatever an ingress answers while it does not know Consul, no lease is gone; by Consul's own word it is."""
    status, body = REFUSALS[kind]
    async with RefusingAgent(status, body) as ingress, client(ingress.url) as driver:
        lease = Lease("11111111-2222-3333-4444-555555555555", 30, "a")
        for call in (driver.renew(lease), driver.acquire(lease, LOCK, record("a")), driver.revoke(lease)):
            with pytest.raises((BackendUnavailable, BackendRefused)):
                await call
    async with client(consul_server.url) as driver:
        lease = await driver.grant_lease("a", 30)
        destroy(consul_server, lease)
        for expired in (driver.renew(lease), driver.acquire(lease, LOCK, record("a"))):
            with pytest.raises(LeaseExpired):
                await expired


# -- another cluster ---------------------------------------------------------------------------------------------------


def test_a_rebuilt_cluster_is_taken_after_a_ttl(consul_server: ConsulServer) -> None:
    """A cluster that took the place of ours grants nothing for one ttl. Then it is ours; leases of the old one are
    gone."""
    one = consul_server

    async def main() -> None:
        with ConsulServer(dev=True) as other:
            await rebuilt(other)

    async def rebuilt(other: ConsulServer) -> None:
        async with (
            Recorder(one) as first,
            Recorder(one) as second,
            client(first.url, second.url, request_timeout=5.0) as driver,
        ):
            begun = clock.now()
            lease = await driver.grant_lease("a", 3)
            for agent in (first, second):
                agent.redirect(other.host, other.http_port)
                agent.cut()
            fresh = await granted(driver, 3)
            assert clock.now() - begun >= 3
            assert session_of(other, fresh)
            with pytest.raises(LeaseExpired):
                await driver.renew(lease)
            await driver.renew(fresh)

    run(main())


async def test_servers_may_be_replaced_one_by_one(consul_server: ConsulServer) -> None:
    """A cluster is the same as long as some of its servers are."""
    (mine,) = json.loads(peers(consul_server))
    grown = json.dumps([mine, "10.0.0.9:8300"])
    async with (
        RefusingAgent(*REFUSALS["no route"], peers=grown) as refusing,
        client(refusing.url, consul_server.url) as driver,
    ):
        await driver.renew(await driver.grant_lease("a", 30))
