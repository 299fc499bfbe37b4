"""An agent that is stopped, restarted, rebuilt, restored, or that is none: what the driver says, and how it goes on."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from support.aio import until
from support.consul_lab import LOCK, Recorder, client, raw_key, record, taken, unavailable, works

from cluster_lock import clock
from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import BackendRefused, BackendUnavailable, LeaseExpired
from cluster_lock.testing.servers import ConsulServer
from cluster_lock.values import Lease

pytestmark = pytest.mark.consul


def fetch(what: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(what, timeout=20) as answer:
        return bytes(answer.read())


# -- one agent ---------------------------------------------------------------------------------------------------------


async def test_stopped_agent_is_noticed_in_time() -> None:
    """While the agent is stopped every verb ends within its request timeout, a wait within its own; then all go on."""
    with ConsulServer(dev=True) as server:
        async with client(server.url, request_timeout=1.0) as driver:
            lease = await driver.grant_lease("a", 60)
            grant, changes = await taken(driver, lease), await driver.read([LOCK])
            entry = changes.entries[LOCK]
            server.pause()
            for call in (
                driver.renew(lease),
                driver.read([LOCK]),
                driver.scan("standby/"),
                driver.acquire(lease, LOCK, record("a")),
                driver.announce(lease, "standby/a", record("a")),
                driver.withdraw(lease, "standby/a"),
                driver.transfer(grant, entry, record("a")),
                driver.release(grant, record("a", released=True)),
                driver.grant_lease("b", 60),
                driver.revoke(lease),
            ):
                await unavailable(call, 1.0)
            await unavailable(driver.wait_changed([LOCK], changes.position, 1.0), 1.0)
            server.resume()
            # Some of them may be applied now: what matters is that the client works and nothing is half done.
            await until(lambda: works(driver, lease))
            assert await driver.acquire(lease, LOCK, record("a"))


async def test_restarted_agent(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over a kill and restart of the server the same client goes on by itself: session, lock, token and waits."""
    with ConsulServer(data_dir=tmp_path_factory.mktemp("consul")) as server:
        async with client(server.url, request_timeout=2.0) as driver:
            lease = await driver.grant_lease("a", 60)
            grant, position = await taken(driver, lease), (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
            await asyncio.to_thread(server.kill)
            await unavailable(waiting, 0)
            await unavailable(driver.renew(lease), 2.0)
            await unavailable(driver.grant_lease("b", 60), 2.0)
            await asyncio.to_thread(server.start)
            try:
                await until(lambda: works(driver, lease))
            except LeaseExpired:  # 404 for a live session while the log is replayed: then that lease is over
                lease = await driver.grant_lease("a", 60)
                await until(lambda: works(driver, lease))
            again = await driver.acquire(lease, LOCK, record("a"))
            assert again is None or again.token == grant.token
            assert (await driver.wait_changed([LOCK], position, 5.0)).entries[LOCK].index >= grant.index


async def test_rebuilt_server_is_not_waited_for_with_the_old_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a server lost all its data a wait from before answers at once with what is so now, and then goes on."""
    with ConsulServer(dev=True) as server:
        async with client(server.url, request_timeout=2.0) as driver:
            lease = await driver.grant_lease("a", 60)
            for _ in range(100):
                server.request("PUT", raw_key(driver, "other"), "x")
            await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 30.0))
            await asyncio.to_thread(server.restart, kill=True)  # -dev keeps nothing
            await unavailable(waiting, 30)
            with pytest.raises(LeaseExpired):
                await driver.renew(lease)
            begun = clock.now()
            changes = await driver.wait_changed([LOCK], position, 20.0)
            assert clock.now() - begun < 10
            assert changes.entries[LOCK].lease is None
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], changes.position, 20.0))
            fresh = await driver.grant_lease("b", 60)
            await taken(driver, fresh)
            assert (await waiting).entries[LOCK].lease == fresh.id


async def test_restored_snapshot_is_told_to_who_waits() -> None:
    """When the store goes back to an older state, who waits is told at once, and hears of the next change too."""
    with ConsulServer() as server:
        async with Recorder(server) as proxy, client(proxy.url) as driver:
            lease = await driver.grant_lease("a", 60)
            snapshot = await asyncio.to_thread(fetch, f"{server.admin_url}/v1/snapshot")
            grant = await taken(driver, lease)
            changes = await driver.read([LOCK])
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], changes.position, 30.0))
            await until(lambda: any("wait=" in line for line in proxy.lines()))
            restore = urllib.request.Request(f"{server.admin_url}/v1/snapshot", snapshot, method="PUT")
            begun = clock.now()
            await asyncio.to_thread(fetch, restore)
            changes = await waiting
            while changes.entries[LOCK].lease is not None:
                changes = await driver.wait_changed([LOCK], changes.position, 30.0)
            assert clock.now() - begun < 15
            assert changes.entries[LOCK].index >= grant.index, "older than the grant: who held it would ignore it"
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], changes.position, 30.0))
            again = await taken(driver, lease)
            assert (await waiting).entries[LOCK].index == again.index


async def test_broken_connection_is_not_used_to_send_a_put_again(consul_server: ConsulServer) -> None:
    """A PUT whose connection breaks before the answer is reported, not repeated behind our back, on a fresh connection
    and on one that was used before."""
    for uses in (0, 3):
        async with Recorder(consul_server) as proxy, client(proxy.url) as driver:
            for _ in range(uses):
                await driver.read([LOCK])
            proxy.drop_reply(b"PUT /v1/session/create")
            await unavailable(driver.grant_lease("a", 30), 0)
            assert len(proxy.lines("PUT /v1/session/create")) == 1
            await driver.revoke(await driver.grant_lease("b", 30))


async def test_close_ends_what_waits(consul_server: ConsulServer) -> None:
    """Closing ends a waiting query at once, and what is asked afterwards is refused; with one agent and with two."""
    for urls in ([consul_server.url], [consul_server.url, consul_server.url]):
        async with client(*urls) as driver:
            position = (await driver.read([LOCK])).position
            waiting = asyncio.ensure_future(driver.wait_changed([LOCK], position, 60.0))
            await asyncio.wait([waiting], timeout=0.3)
            await driver.close()
            await unavailable(waiting, 0)
            await unavailable(driver.read([LOCK]), 0)


async def test_not_opened(consul_server: ConsulServer) -> None:
    """A driver that was never opened says so, and closing it is fine."""
    driver = ConsulDriver([consul_server.url], request_timeout=1)
    with pytest.raises(BackendUnavailable, match="not open"):
        await driver.read([LOCK])
    await driver.close()


# -- what is no agent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>", BackendUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", BackendUnavailable),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n<html/>", BackendRefused),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", BackendRefused),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\n\r\n<html/>", BackendUnavailable),
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n", BackendUnavailable),
        (b"220 mail.example ESMTP\r\n", BackendUnavailable),
        (b"", BackendUnavailable),
    ],
    ids=["html", "other json", "other server", "redirect", "proxy", "too many", "no http", "nothing"],
)
async def test_another_kind_of_server(answer: bytes, error: type[Exception]) -> None:
    """Whatever else listens at the address, the error is one of ours and names the address."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, client(url) as driver:
        lease = Lease("11111111-2222-3333-4444-555555555555", 10, "a")
        for call in (driver.grant_lease("a", 10), driver.read([LOCK]), driver.acquire(lease, LOCK, record("a"))):
            with pytest.raises((BackendUnavailable, BackendRefused)) as raised:
                await call
            assert isinstance(raised.value, error), raised.value
            assert url in str(raised.value)
