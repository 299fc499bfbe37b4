"""Sessions as leases: how they are made, where they live, what ends them, and what stays behind."""

from __future__ import annotations

import asyncio

import pytest
from support.aio import until
from support.consul_lab import HEIR, LOCK, client, destroy, prefix_of, record, session_of

from cluster_lock import clock
from cluster_lock.errors import BackendRefused, ConfigError, LeaseExpired
from cluster_lock.testing.servers import ConsulServer

pytestmark = pytest.mark.consul


async def test_session_as_the_server_has_it(consul_server: ConsulServer) -> None:
    """A session bears the holder's name and the ttl, has no checks that could end it, no lock-delay, and frees keys."""
    async with client(consul_server.url) as driver:
        lease = await driver.grant_lease("web-1@host/7", 12.5)
        session = session_of(consul_server, lease)
        assert session is not None
        assert (session["Name"], session["TTL"], session["Behavior"]) == ("web-1@host/7", "12.5s", "release")
        assert (session["NodeChecks"], session["ServiceChecks"], session["LockDelay"]) == ([], None, 0)
        assert lease.ttl == 12.5
        assert driver.traits.expiry_factor == 2.0


async def test_session_options_reach_the_server(consul_server: ConsulServer) -> None:
    """lock_delay, behavior and checks are what the session has."""
    options = {"lock_delay": 1.5, "behavior": "delete", "checks": ["serfHealth"]}
    async with client(consul_server.url, **options) as driver:
        session = session_of(consul_server, await driver.grant_lease("a", 30))
        assert session is not None
        assert (session["LockDelay"], session["Behavior"]) == (1_500_000_000, "delete")
        assert session["NodeChecks"] == ["serfHealth"]


async def test_servers_own_limits_of_a_ttl() -> None:
    """With Consul's defaults a ttl under 10 s is refused with that number, and 10 s is granted."""
    with ConsulServer(dev=True, fast=False) as server:
        async with client(server.url) as driver:
            with pytest.raises(BackendRefused, match=r"10s .*session_ttl_min"):
                await driver.grant_lease("a", 5)
            with pytest.raises(BackendRefused, match="24h"):
                await driver.grant_lease("a", 100_000)
            with pytest.raises(BackendRefused, match="10s"):
                await driver.grant_lease("a", 0.0001)  # not 0, which would never end
            lease = await driver.grant_lease("a", 10)
            assert await driver.renew(lease) == 0
            session = session_of(server, lease)
            assert session is not None
            assert session["TTL"] == "10s"


@pytest.mark.slow
async def test_default_ttl_ends_after_twice_its_time() -> None:
    """A silent session of Consul's shortest default ttl keeps its lock for 10 s at least and 20 s and a bit at most."""
    with ConsulServer(dev=True, fast=False) as server:
        async with client(server.url) as driver:
            lease, waiter = await driver.grant_lease("a", 10), await driver.grant_lease("b", 60)
            assert await driver.acquire(lease, LOCK, record("a"))
            position = (await driver.read([LOCK])).position
            last_sent = clock.now()
            await driver.renew(lease)
            held = True
            while held and clock.now() < last_sent + 30:
                changes = await driver.wait_changed([LOCK], position, 15)
                position, held = changes.position, changes.entries[LOCK].lease is not None
            passed = clock.now() - last_sent
            assert 10 <= passed < 20 * 1.0 + 3, passed
            assert await driver.acquire(waiter, LOCK, record("b"))
            with pytest.raises(LeaseExpired):
                await driver.renew(lease)


async def test_refusals_leave_no_session_behind(consul_server: ConsulServer) -> None:
    """After 1,000 refused acquires of one client the server has exactly the two sessions that it had before."""
    async with client(consul_server.url) as driver:
        holder, waiter = await driver.grant_lease("holder", 30), await driver.grant_lease("waiter", 30)
        assert await driver.acquire(holder, LOCK, record("holder"))
        for _ in range(10):
            refused = await asyncio.gather(*(driver.acquire(waiter, LOCK, record("waiter")) for _ in range(100)))
            assert set(refused) == {None}
        sessions = consul_server.request("GET", "/v1/session/list?consistent")
        ours = [session["ID"] for session in sessions if session["ID"] in (holder.id, waiter.id)]
        assert len(ours) == 2
        names = [session["Name"] for session in sessions]
        assert (names.count("holder"), names.count("waiter")) == (1, 1)
        await driver.revoke(holder)
        await driver.revoke(waiter)


async def test_revoking_deletes_the_records_of_the_dead(consul_server: ConsulServer) -> None:
    """Contender records whose session ended are left out of scans, and deleted by the next revoke; live ones stay."""
    async with client(consul_server.url) as driver:
        dead, live, leaving = [await driver.grant_lease(name, 30) for name in ("dead", "live", "leaving")]
        await driver.announce(dead, "standby/dead", record("dead"))
        await driver.announce(live, "standby/live", record("live"))
        destroy(consul_server, dead)
        assert [entry.name for entry in await driver.scan("standby/")] == ["standby/live"]
        assert consul_server.value(prefix_of(driver) + "standby/dead") == record("dead")
        await driver.revoke(leaving)
        assert consul_server.value(prefix_of(driver) + "standby/dead") is None
        assert consul_server.value(prefix_of(driver) + "standby/live") == record("live")


async def test_behavior_delete_deletes_what_a_dead_session_held(consul_server: ConsulServer) -> None:
    """With behavior "delete" the end of a session takes its keys along; a release leaves its last word all the same."""
    async with client(consul_server.url, behavior="delete") as driver:
        lease, other = await driver.grant_lease("a", 30), await driver.grant_lease("b", 30)
        grant = await driver.acquire(lease, LOCK, record("a"))
        assert grant is not None
        await driver.release(grant, record("a", released=True))
        again = await driver.acquire(lease, LOCK, record("a"))
        assert again is not None
        assert again.previous == record("a", released=True)
        await driver.announce(lease, HEIR, record("a"))
        destroy(consul_server, lease)
        entries = (await driver.read([LOCK, HEIR])).entries
        assert [entry.record for entry in entries.values()] == [None, None]
        taken = await driver.acquire(other, LOCK, record("b"))
        assert taken is not None
        assert (taken.previous, taken.token > again.token) == (None, True)


async def test_session_node(consul_server: ConsulServer) -> None:
    """Sessions live on the registered node that is named; one that is not registered is refused with what to do."""
    name = "cluster-lock-external"
    async with client(consul_server.url, session_node=name) as driver:
        with pytest.raises(BackendRefused, match="/v1/catalog/register") as refused:
            await driver.grant_lease("a", 30)
        assert name in str(refused.value)
        consul_server.request("PUT", "/v1/catalog/register", {"Node": name, "Address": "127.0.0.1"})
        lease = await driver.grant_lease("a", 30)
        session = session_of(consul_server, lease)
        assert session is not None
        assert session["Node"] == name
        assert await driver.acquire(lease, LOCK, record("a"))
        await driver.renew(lease)
        consul_server.request("PUT", "/v1/catalog/deregister", {"Node": name})
        await until(lambda: session_of(consul_server, lease) is None)
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)


@pytest.mark.parametrize(
    "url",
    [
        "8500",
        "127.0.0.1:8500/v1",
        "http:/127.0.0.1:8500",
        "unix:///run/consul.sock",
        "http://",
        "http://user:secret@127.0.0.1:8500",
        "http://h?token=secret",
    ],
)
def test_address_that_is_none(url: str) -> None:
    """An address that cannot be asked, or that would carry a secret, is refused without repeating the secret."""
    from cluster_lock.drivers.consul import ConsulDriver

    with pytest.raises(ConfigError) as refused:
        ConsulDriver([url], request_timeout=1)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("urls", "access"),
    [
        (["http://10.0.0.1:8500"], {"token": "5ecret"}),
        (["http://10.0.0.1:8500"], {"ca": "/ca.crt"}),
        (["http://10.0.0.1:8500"], {"cert": "/c.crt"}),
        (["https://a:8501", "http://10.0.0.1:8500"], {}),
        (["http://127.0.0.1:8500", "http://10.0.0.1:8500"], {"token": "5ecret"}),
    ],
)
def test_nothing_is_sent_in_the_clear(urls: list[str], access: dict[str, str]) -> None:
    """With a token, a CA, a certificate or one https address, an address of another host must be https too."""
    from cluster_lock.drivers.consul import ConsulDriver

    with pytest.raises(
        ConfigError, match=r"^consul: http://10\.0\.0\.1:8500 would be spoken to in the clear"
    ) as refused:
        ConsulDriver(urls, request_timeout=1, **access)  # type: ignore[arg-type]
    assert "5ecret" not in str(refused.value)


def test_address_without_a_scheme() -> None:
    """An address may be as Consul's own variable has it: http, but https where something is shown to another host."""
    from cluster_lock.drivers.consul import ConsulDriver

    urls = ["127.0.0.1:8500", "localhost:8500", "a:8500"]
    assert ConsulDriver(urls, request_timeout=1).backend == (
        "consul http://127.0.0.1:8500, http://localhost:8500, http://a:8500"
    )
    assert ConsulDriver(urls, request_timeout=1, token="t").backend == (
        "consul http://127.0.0.1:8500, http://localhost:8500, https://a:8500"
    )
