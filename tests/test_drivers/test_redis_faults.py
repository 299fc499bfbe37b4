"""What can happen to a Redis server, and to the connections to it, and what the driver makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from support import drivers
from support.aio import in_a_thread, run, until
from support.certs import Authority
from support.leases import first_lease
from support.proxy import Proxy
from support.redis import replica_of

from cluster_lock import clock
from cluster_lock.drivers.bounded import BoundedDriver
from cluster_lock.drivers.redis import RedisDriver
from cluster_lock.errors import (
    BackendRefused,
    BackendUnavailable,
    ConfigError,
    LeaseExpired,
    NoLeaseYet,
    PermissionRefused,
)
from cluster_lock.testing.servers import RedisServer, ServerTLS
from cluster_lock.values import Grant, Lease

pytestmark = pytest.mark.redis

PREFIX, LOCK = "faults/", "leader/x"
TTL, REQUEST = 4.0, 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def opened(server: RedisServer, port: int | None = None, **options: object) -> AbstractAsyncContextManager[RedisDriver]:
    url = f"redis://{server.host}:{port or server.port}"
    return drivers.opened(RedisDriver([url], prefix=PREFIX, request_timeout=REQUEST, **options))  # type: ignore[arg-type]


async def leased(driver: RedisDriver, ttl: float = TTL) -> Lease:
    return await first_lease(driver, ttl)


async def taken(driver: RedisDriver, lease: Lease) -> Grant:
    grant = await driver.acquire(lease, LOCK, b"{}")
    assert grant is not None
    return grant


async def test_a_new_server_gives_nothing_away_for_a_ttl(server: RedisServer) -> None:
    """A server that was just started may have lost what others work under: for one ttl it gives nobody a lease."""
    began = clock.now()
    async with opened(server) as driver:
        with pytest.raises(NoLeaseYet, match="may have lost locks"):
            await driver.grant_lease("somebody", 5.0)
        await leased(driver, 5.0)
        assert clock.now() - began > 3.0


async def test_a_restart_without_data(server: RedisServer) -> None:
    """After a restart that forgot all, nobody gets a lock before the last one that there was is over; then its token is
    larger."""
    async with opened(server) as driver:
        before = await taken(driver, await leased(driver))
        last = clock.now()
        await asyncio.to_thread(server.restart)
        with pytest.raises(LeaseExpired):
            await until_answered(driver, before.lease)
        with pytest.raises(BackendUnavailable):
            await driver.acquire(before.lease, LOCK, b"{}")
        after = await taken(driver, await leased(driver))
        assert clock.now() - last >= TTL
        assert after.token > before.token


async def until_answered(driver: RedisDriver, lease: Lease) -> None:
    while True:
        try:
            await driver.renew(lease)
        except BackendUnavailable:
            await asyncio.sleep(0.05)


async def test_a_server_that_stands_still(server: RedisServer) -> None:
    """A verb to a stopped server ends in time; a lease that was over meanwhile is gone afterwards, and no answer of the
    time before is taken for another one."""
    async with opened(server) as driver:
        lease = await leased(driver)
        await taken(driver, lease)
        server.pause()
        began = clock.now()
        with pytest.raises(BackendUnavailable, match="did not answer in time"):
            await driver.renew(lease)
        assert clock.now() - began < REQUEST + 1.0
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])
        await until(lambda: clock.now() > began + TTL)
        server.resume()
        assert (await driver.read([LOCK])).entries[LOCK].lease is None
        with pytest.raises(LeaseExpired):
            await driver.renew(lease)


async def test_a_verb_that_is_cancelled(server: RedisServer) -> None:
    """Its answer comes late, and is not taken for that of the next one."""
    async with opened(server) as driver:
        lease = await leased(driver, 8.0)
        await taken(driver, lease)
        server.pause()
        asked = asyncio.create_task(driver.renew(lease))
        await asyncio.wait([asked], timeout=0.1)
        asked.cancel()
        await asyncio.wait([asked])
        server.resume()
        assert (await driver.read([LOCK])).entries[LOCK].lease == lease.id


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_connections_that_are_killed(server: RedisServer, kind: str) -> None:
    """Whichever connections the server ends, the next verb makes another one, and a wait loses no change."""
    async with opened(server) as driver, opened(server) as other:
        seen = await driver.read([LOCK])
        waiting = asyncio.create_task(driver.wait_changed([LOCK], seen.position, 20.0))
        await until(lambda: server.cli("PUBSUB", "CHANNELS").strip() == f"{PREFIX}changes")
        server.cli("CLIENT", "KILL", "TYPE", kind)
        await taken(other, await leased(other))
        position = seen.position
        while True:
            # One verb may find its connection dead.
            with contextlib.suppress(BackendUnavailable):
                changes = await waiting
                if LOCK in changes.entries:
                    break
                position = changes.position
            waiting = asyncio.create_task(driver.wait_changed([LOCK], position, 20.0))


async def test_a_subscription_that_hears_nothing(server: RedisServer) -> None:
    """A subscription that gives no sign of life, though its connection stands, is made anew: the next change is told
    when it comes, and not when the wait is over."""
    async with Proxy(server.host, server.port) as proxy, opened(server, proxy.port) as driver, opened(server) as other:
        lease = await leased(other)
        seen = await driver.read([LOCK])
        silence = proxy.drop_reply(b"PING\r\n$", hang=True)
        await driver.wait_changed([LOCK], seen.position, 0.2)
        assert silence.caught.is_set()
        waiting = asyncio.create_task(driver.wait_changed([LOCK], seen.position, 60.0))
        await driver.read([LOCK])
        began = clock.now()
        await taken(other, lease)
        assert LOCK in (await waiting).entries
        assert clock.now() - began < 10


async def test_all_connections_are_cut(server: RedisServer) -> None:
    """However many connections an outage ended, one request finds it out: the next one is answered."""
    async with Proxy(server.host, server.port) as proxy, opened(server, proxy.port) as driver:
        await asyncio.gather(*(driver.read([LOCK]) for _ in range(5)))
        assert proxy.connections >= 4
        proxy.cut()
        await until(lambda: proxy.connections == 0)
        with pytest.raises(BackendUnavailable):
            await driver.read([LOCK])
        await driver.read([LOCK])


async def test_a_late_release_of_an_earlier_term(server: RedisServer) -> None:
    """A copy of an old release that arrives in the next term of the same lease changes nothing."""
    async with opened(server) as driver:
        lease = await leased(driver, 5.0)
        first = await taken(driver, lease)
        await driver.release(first, b"bye")
        second = await taken(driver, lease)
        await driver.release(first, b"bye")
        assert (await driver.read([LOCK])).entries[LOCK].index == second.index


async def test_all_keys_are_gone(server: RedisServer) -> None:
    """After FLUSHALL the holder's lease is gone, and the next token is larger than the last."""
    async with opened(server) as driver:
        before = await taken(driver, await leased(driver))
        server.cli("FLUSHALL")
        with pytest.raises(LeaseExpired):
            await driver.renew(before.lease)
        assert (await taken(driver, await leased(driver))).token > before.token


async def test_scripts_that_the_server_forgot(server: RedisServer) -> None:
    """A script that is not there any more is sent again."""
    async with opened(server) as driver:
        lease = await leased(driver)
        server.cli("SCRIPT", "FLUSH")
        assert await taken(driver, lease)


@pytest.mark.parametrize("junk", ["a string", "a list", "a huge number"])
async def test_junk_under_our_own_keys(server: RedisServer, junk: str) -> None:
    """Whatever somebody writes over the books of the driver, every verb works, and a token never goes back."""
    async with opened(server) as driver:
        lease = await leased(driver)
        before = await taken(driver, lease)
        await driver.release(before, b"bye")
        for key in ("index", "names", "leases", f"held/{lease.id}", "last/x", "before/x"):
            server.cli("DEL", PREFIX + key)
            match junk:
                case "a string":
                    server.cli("SET", PREFIX + key, "junk")
                case "a list":
                    server.cli("RPUSH", PREFIX + key, "junk")
                case _:
                    server.cli("SET", PREFIX + key, "9" * 40)
        grant = await taken(driver, lease)
        assert grant.token > before.token
        assert [entry.name for entry in await driver.scan("leader/")] == [LOCK]
        await driver.release(grant, b"bye")
        await driver.revoke(lease)
        assert await driver.scan("leader/") == []


@pytest.mark.parametrize(
    ("configured", "says"),
    [
        (("maxmemory-policy", "allkeys-lru"), "may drop locks"),
        (("maxmemory-policy", "volatile-ttl"), "may drop locks"),
    ],
)
async def test_a_server_that_may_drop_locks(server: RedisServer, configured: tuple[str, str], says: str) -> None:
    """A server that throws keys away when it is full is refused in a sentence."""
    server.cli("CONFIG", "SET", "maxmemory", "100mb")
    server.cli("CONFIG", "SET", *configured)
    with pytest.raises(BackendRefused, match=says):
        async with opened(server):
            pass


async def test_a_replica(server: RedisServer) -> None:
    """A read-only replica is no place for a lock, and may become one: the driver opens, and has no lease to give."""
    with replica_of(server) as replica:
        async with opened(replica) as driver:
            with pytest.raises(BackendUnavailable, match="only read-only replicas answer"):
                await driver.grant_lease("somebody", TTL)


async def test_tls_with_a_wrong_ca(tls: ServerTLS, tmp_path: Path) -> None:
    """A server whose certificate another CA signed is refused, by its address, and never spoken to: nor is the next one
    of the addresses."""
    wrong: dict[str, Any] = {
        "ca": str(Authority(tmp_path, "other").ca),
        "cert": str(tls.client_cert),
        "key": str(tls.client_key),
    }
    with RedisServer(tls=tls) as secure, RedisServer(tls=tls) as other:
        driver = RedisDriver([secure.url, other.url], prefix=PREFIX, request_timeout=REQUEST, **wrong)
        with pytest.raises(BackendRefused, match="certificate is not trusted") as refused:
            await driver.open()
        assert secure.url.removeprefix("rediss://") in str(refused.value)
        await driver.close()


def test_a_goodbye_that_takes_its_time(tls: ServerTLS) -> None:
    """With TLS no socket is left to a loop that ends right after the driver was closed, however far the server is."""
    with RedisServer(tls=tls) as server, in_a_thread(Proxy(server.host, int(server.url.rpartition(":")[2]))) as far:
        far.delay = 0.1
        url = f"rediss://{far.host}:{far.port}"
        files: dict[str, Any] = {"ca": tls.ca, "cert": tls.client_cert, "key": tls.client_key}

        async def a_short_life() -> None:
            async with drivers.opened(RedisDriver([url], prefix=PREFIX, request_timeout=10.0, **files)) as driver:
                seen = await driver.read([LOCK])
                await driver.wait_changed([LOCK], seen.position, 0.1)  # a subscription has a connection of its own

        run(a_short_life())
        gc.collect()  # what was left says so now


async def test_a_grant_waits_for_a_replica(server: RedisServer) -> None:
    """With `wait_replicas` nobody gets a lease before a replica has it."""
    async with opened(server, wait_replicas=1) as driver:
        server.wait_age(30)
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas have the change"):
            await driver.grant_lease("somebody", TTL)
        with replica_of(server) as replica:
            lease = await leased(driver, 30)

            async def granted() -> Grant | None:
                with contextlib.suppress(BackendUnavailable):  # the replica takes its time
                    return await driver.acquire(lease, LOCK, b"{}")
                return None

            await until(granted)
            grant = await taken(driver, lease)
            assert str(grant.token) in replica.cli("GET", f"{PREFIX}{LOCK}")


async def test_two_primaries(server: RedisServer) -> None:
    """Two primaries among the addresses are refused: two could lead."""
    with RedisServer() as second:
        driver = RedisDriver([server.url, second.url], prefix=PREFIX, request_timeout=REQUEST)
        with pytest.raises(BackendRefused, match="2 of these are primaries"):
            await driver.open()
        await driver.close()


async def test_a_replica_that_becomes_the_primary(server: RedisServer) -> None:
    """Who is led to another server than before waits one ttl: it may lack what the one before had granted."""
    with replica_of(server) as replica:
        driver = RedisDriver([server.url, replica.url], prefix=PREFIX, request_timeout=REQUEST)
        await driver.open()
        before = await taken(driver, await leased(driver))
        last = clock.now()
        server.kill()
        replica.promote()
        with pytest.raises(BackendUnavailable, match="may have lost locks"):
            await granted_or_told(driver)
        assert (await taken(driver, await leased(driver))).token > before.token
        assert clock.now() - last >= TTL
        await driver.close()


async def test_who_starts_after_a_failover(server: RedisServer) -> None:
    """A process that never knew the primary before waits one ttl at a replica that was promoted, however long that has
    run; the next process need not wait again."""
    with replica_of(server) as replica:
        await asyncio.to_thread(replica.wait_age, TTL + 1)
        server.kill()
        replica.promote()
        begun = clock.now()
        async with opened(replica) as driver:
            with pytest.raises(NoLeaseYet, match="became the primary"):
                await driver.grant_lease("a", TTL)
            await leased(driver)
            assert clock.now() - begun >= TTL
        await until(lambda: clock.now() - begun > TTL + 3)
        async with opened(replica) as later:
            await later.grant_lease("b", TTL)


async def test_a_primary_that_falls_silent(server: RedisServer) -> None:
    """However many connections to it there are, a request or two find it out, and not one for each of them."""
    with replica_of(server) as replica:
        own = RedisDriver([server.url, replica.url], prefix=PREFIX, request_timeout=REQUEST)
        await own.open()
        driver = BoundedDriver(own, REQUEST)  # as a session has it
        await asyncio.gather(*(driver.read([LOCK]) for _ in range(4)))
        server.pause()
        replica.promote()
        failed = 0
        while True:
            try:
                await driver.read([LOCK])
                break
            except BackendUnavailable:
                failed += 1
        assert failed <= 2
        server.resume()
        await own.close()


async def test_a_contender_whose_name_is_no_text(server: RedisServer) -> None:
    """What strangers put there makes no verb fail."""
    async with opened(server) as driver:
        lease = await leased(driver)
        await driver.announce(lease, "standby/a", b"{}")
        script = "for _, n in ipairs({'standby/' .. string.char(255)}) do redis.call('SADD', ARGV[1] .. 'names', n)"
        script += " redis.call('SET', ARGV[1] .. n, ARGV[2] .. ' 5 x') end return 1"
        server.cli("EVAL", script, "0", PREFIX, lease.id)
        assert [entry.name for entry in await driver.scan("standby/")] == ["standby/a"]


async def granted_or_told(driver: RedisDriver) -> None:
    """The first verb may find its connection dead."""
    try:
        await driver.read([LOCK])
    except BackendUnavailable:
        await driver.read([LOCK])
    await driver.grant_lease("somebody", TTL)


class SentinelServer(RedisServer):
    """One Sentinel that is enough for a failover of `primary`, whose `password` it knows; it has none itself."""

    def __init__(self, primary: RedisServer, password: str) -> None:
        super().__init__()
        self._watched, self._secret = primary, password

    def _command(self) -> list[str]:
        watched = self._watched
        configuration = self.data_dir / "sentinel.conf"
        lines = [
            f"port {self.port}",
            f"bind {self.host}",
            f"dir {self.data_dir}",
            f"sentinel monitor locks {watched.host} {watched.port} 1",
            f"sentinel auth-pass locks {self._secret}",
            "sentinel down-after-milliseconds locks 500",
            "sentinel failover-timeout locks 5000",
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return [str(self._program), str(configuration), "--sentinel"]


async def test_a_failover_by_sentinel(server: RedisServer) -> None:
    """When a Sentinel makes the replica the primary, the driver follows it: nobody gets a lock for one ttl, and the
    next token is larger. The Sentinel needs no password where the servers have one."""
    password = "of-the-servers"
    with replica_of(server) as replica, SentinelServer(server, password) as sentinel:
        for each in (server, replica):
            each.cli("CONFIG", "SET", "masterauth", password)
            each.cli("ACL", "SETUSER", "default", f">{password}", "resetpass", f">{password}")
        await until(lambda: str(replica.port) in sentinel.cli("SENTINEL", "REPLICAS", "locks"))
        driver = RedisDriver([sentinel.url], prefix=PREFIX, request_timeout=REQUEST, service="locks", password=password)
        await driver.open()
        before = await taken(driver, await leased(driver))
        last = clock.now()
        server.kill()
        after = await taken(driver, await leased(driver))
        assert after.token > before.token
        assert clock.now() - last >= TTL
        assert sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "locks").split()[1] == str(replica.port)
        await driver.close()


async def test_rights(server: RedisServer) -> None:
    """A wrong password and a missing right are refused in a sentence that shows no secret; the rights that the
    documentation names are enough."""
    server.cli("ACL", "SETUSER", "bot", "on", ">right", "~faults/*", "&faults/*", *RIGHTS)
    server.cli("ACL", "SETUSER", "poor", "on", ">right", "~other/*", "&other/*", *RIGHTS)
    with pytest.raises(PermissionRefused) as refused:
        async with opened(server, user="bot", password="wrong-and-secret"):
            pass
    assert "wrong-and-secret" not in str(refused.value)
    async with opened(server, user="poor", password="right") as driver:
        with pytest.raises(PermissionRefused):
            await leased(driver)
    async with opened(server, user="bot", password="right") as driver:
        grant = await taken(driver, await leased(driver))
        await driver.wait_changed([LOCK], (await driver.read([LOCK])).position, 0.1)
        await driver.renew(grant.lease)
        await driver.release(grant, b"bye")
        assert await driver.inspect("leader/") == []


RIGHTS = (
    *("+ping", "+info", "+select", "+eval", "+evalsha", "+time", "+exists", "+get", "+set", "+del", "+pexpire"),
    *("+pttl", "+sadd", "+srem", "+smembers", "+publish", "+subscribe", "+scan", "+wait"),
)

LOOKING = "+ping", "+info", "+select", "+eval", "+evalsha", "+time", "+exists", "+get", "+pttl", "+smembers", "+scan"


def user(server: RedisServer, name: str, *rights: str) -> None:
    server.cli("ACL", "SETUSER", name, "reset", "on", ">right", "~faults/*", "&faults/*", *rights)


def kept(server: RedisServer) -> dict[str, str]:
    """All that stands there."""
    return {key: server.cli("--no-raw", "DUMP", key) for key in sorted(server.cli("KEYS", "*").splitlines())}


async def test_a_right_that_was_taken_away(server: RedisServer) -> None:
    """A verb that is refused for one of its commands has changed nothing."""
    user(server, "bot", *RIGHTS)
    async with opened(server, user="bot", password="right") as driver:
        lease = await leased(driver, 8.0)
        await driver.release(await taken(driver, lease), b"bye")
        held = await taken(driver, lease)
        await driver.announce(lease, "standby/heir", b"{}")
        (heir,) = await driver.scan("standby/")
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "acquire": lambda: driver.acquire(lease, "leader/y", b"{}"),
            "release": lambda: driver.release(held, b"bye"),
            "transfer": lambda: driver.transfer(held, heir, b"{}"),
            "revoke": lambda: driver.revoke(lease),
        }
        for verb, needs in {
            "acquire": ("+publish", "+sadd", "+set", "+del", "+get", "+exists"),
            "release": ("+publish", "+srem", "+set", "+del", "+get", "+exists"),
            "transfer": ("+publish", "+sadd", "+srem", "+set", "+get", "+exists"),
            "revoke": ("+publish", "+srem", "+set", "+del", "+get", "+smembers"),
        }.items():
            for missing in needs:
                await driver.renew(lease)
                user(server, "bot", *(right for right in RIGHTS if right != missing))
                stood = kept(server)
                with pytest.raises(PermissionRefused):
                    await verbs[verb]()
                assert kept(server) == stood, (verb, missing)
                user(server, "bot", *RIGHTS)


async def test_the_books_that_one_may_not_read(server: RedisServer) -> None:
    """Who may not read the books of the driver leaves them as they are."""
    async with opened(server) as other:
        await taken(other, await leased(other, 8.0))
        user(server, "bot", *(right for right in RIGHTS if right != "+smembers"))
        async with opened(server, user="bot", password="right") as driver:
            with pytest.raises(PermissionRefused):
                await driver.grant_lease("bot", TTL)
            with pytest.raises(PermissionRefused):
                await driver.scan("leader/")
        assert [entry.name for entry in await other.scan("leader/")] == [LOCK]


async def test_looking_changes_nothing(server: RedisServer) -> None:
    """Who looks needs only the right to read, also at a server that was promoted and with a lease that has more time
    than it was given for, and changes nothing."""
    with replica_of(server) as replica:
        replica.promote()
        async with opened(replica) as other:
            lease = await leased(other)
            grant = await taken(other, lease)
            replica.cli("PERSIST", f"{PREFIX}lease/{lease.id}")
            replica.cli("DEL", f"{PREFIX}primary")
            user(replica, "looker", *LOOKING)
            stood = kept(replica)
            async with opened(replica, user="looker", password="right") as driver:
                assert [entry.index for entry in await driver.inspect("leader/")] == [grant.index]
                assert [entry.index for entry in await driver.scan("leader/")] == [grant.index]
                await driver.lease_times([lease.id])
                (node,) = await driver.nodes()
                assert node.told_at is not None
            assert kept(replica) == stood
            assert replica.cli("PTTL", f"{PREFIX}lease/{lease.id}").strip() == "-1"


async def test_more_requests_than_connections(server: RedisServer) -> None:
    """However much is asked at once there are a few connections; a renewal waits for none of the others, and nobody for
    replicas but who is granted something."""
    with replica_of(server) as replica:
        async with Proxy(server.host, server.port) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}"
            patient = RedisDriver([url], prefix=PREFIX, request_timeout=30.0, wait_replicas=1)
            async with drivers.opened(patient) as driver:
                lease = await leased(driver, 8.0)
                await asyncio.gather(*(driver.read([LOCK]) for _ in range(100)))
                assert proxy.connections <= 4
                replica.pause()
                asked = [asyncio.create_task(driver.acquire(lease, f"leader/{n}", b"{}")) for n in range(20)]
                await until(lambda: "blocked_clients:4" in server.cli("INFO", "clients"))
                await driver.renew(lease)
                await driver.read([LOCK])
                assert not any(task.done() for task in asked)
                assert proxy.connections <= 5
                replica.resume()
                await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("what", ["user", "password", "service"])
def test_settings_that_are_no_text(what: str) -> None:
    """What cannot be sent is refused in a sentence that does not show it."""
    given: dict[str, Any] = {"user": "bot", "password": "right", what: "SeCrEt\udcff"}
    with pytest.raises(ConfigError, match=f"the {what} is no text") as refused:
        RedisDriver(["redis://127.0.0.1:1"], prefix=PREFIX, request_timeout=REQUEST, **given)
    assert "SeCrEt" not in str(refused.value)
