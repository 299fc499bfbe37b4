"""etcd with users: tokens that end, rights that do not suffice, secrets that stay secret."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support.aio import until
from support.etcd import LOCK, entry, new_prefix, opened, started, taken

from cluster_lock.errors import BackendUnavailable, PermissionRefused
from cluster_lock.testing.servers import EtcdServer

pytestmark = pytest.mark.etcd


class Password:
    """Like pydantic's SecretStr."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def get_secret_value(self) -> str:
        return self._secret


@pytest.fixture(scope="module")
def server(etcd_release: str) -> Iterator[EtcdServer]:
    with EtcdServer(release=etcd_release, auth=True, auth_token_ttl=1) as server:
        yield server


async def test_user_may_work_under_the_prefix(server: EtcdServer) -> None:
    """A user whose role covers the prefix alone can do all that a lock needs, with a password that hides itself."""
    async with opened(server.endpoints, user=server.username, password=Password(server.password)) as driver:
        lease = await driver.grant_lease("a", 30)
        grant = await taken(driver, lease)
        await driver.renew(lease)
        await driver.announce(lease, "standby/a", b"here")
        position = (await driver.read([LOCK])).position
        assert [found.name for found in await driver.scan("standby/")] == ["standby/a"]
        await driver.release(grant, b"farewell")
        assert (await driver.wait_changed([LOCK], position, 5.0)).entries[LOCK].lease is None
        await driver.withdraw(lease, "standby/a")
        await driver.revoke(lease)


async def test_token_whose_time_is_over(server: EtcdServer) -> None:
    """After the token's time the driver goes on with a new one, and a held lock is as it was."""
    async with opened(server.endpoints, user=server.username, password=server.password) as driver:
        grant = await taken(driver, await driver.grant_lease("a", 60))
        logins = started(server, "Authenticate", "Auth")
        await asyncio.sleep(2.5)  # the passing of time itself is what is tested: ttl 1 s, looked at each second
        assert (await entry(driver)).index == grant.index
        assert started(server, "Authenticate", "Auth") == logins + 1
        await driver.renew(grant.lease)
        await driver.release(grant, b"farewell")


async def test_forgotten_token_makes_one_login(server: EtcdServer) -> None:
    """When the server forgets all tokens, twenty verbs at once make one login, and all of them go on."""
    async with opened(server.endpoints, user=server.username, password=server.password) as driver:
        lease = await driver.grant_lease("a", 60)
        await taken(driver, lease)
        forget_tokens(server)
        logins = started(server, "Authenticate", "Auth")
        await asyncio.gather(
            *(driver.read([LOCK]) for _ in range(10)),
            *(driver.acquire(lease, LOCK, b"again") for _ in range(10)),
        )
        assert started(server, "Authenticate", "Auth") == logins + 1


async def test_watch_may_be_the_first_to_need_a_login(server: EtcdServer) -> None:
    """A watch with a forgotten token is refused in its first answer: it logs in, and waits."""
    async with opened(server.endpoints, user=server.username, password=server.password) as driver:
        position = (await driver.read([LOCK])).position
        forget_tokens(server)
        logins = started(server, "Authenticate", "Auth")
        assert (await driver.wait_changed([LOCK], position, 0.1)).entries[LOCK].lease is None
        assert started(server, "Authenticate", "Auth") == logins + 1


def forget_tokens(server: EtcdServer) -> None:
    server.ctl("auth", "disable")
    server.ctl("auth", "enable")


async def test_restarted_server_forgets_tokens(etcd_release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was killed, and whose log no longer tells of our login, is logged in to again."""
    monkeypatch.setenv("ETCD_SNAPSHOT_COUNT", "3")
    with EtcdServer(release=etcd_release, auth=True) as server:
        async with opened(server.endpoints, user=server.username, password=server.password) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            for number in range(10):
                await driver.announce(lease, "standby/a", str(number).encode())
            await asyncio.to_thread(server.restart, kill=True)

            async def connected() -> bool:
                with contextlib.suppress(BackendUnavailable):
                    return (await entry(driver)).index == grant.index
                return False

            await until(connected)
            assert started(server, "Authenticate", "Auth") == 1
            await driver.renew(lease)
            await driver.release(grant, b"farewell")


@pytest.mark.parametrize("verb", ["acquire", "read", "scan", "announce", "wait", "many"])
async def test_denied_key_is_named(server: EtcdServer, verb: str) -> None:
    """What the role does not allow is refused with the key in the text; a denied watch too, instead of waiting."""
    async with opened(server.endpoints, prefix="elsewhere/", user=server.username, password=server.password) as driver:
        lease = await driver.grant_lease("a", 30)
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "acquire": partial(driver.acquire, lease, LOCK, b""),
            "read": partial(driver.read, [LOCK]),
            "scan": partial(driver.scan, LOCK),
            "announce": partial(driver.announce, lease, LOCK, b""),
            "wait": partial(driver.wait_changed, [LOCK], 1, 20.0),
            "many": partial(driver.read, [LOCK, *map(str, range(200))]),
        }
        with pytest.raises(PermissionRefused, match=f"elsewhere/{LOCK}"):
            await verbs[verb]()
        await driver.revoke(lease)


async def test_right_to_the_key_but_not_to_the_last_word(etcd_release: str) -> None:
    """A role for PREFIX/leader/ alone does not suffice, and the refusal names the other key that is written."""
    with EtcdServer(release=etcd_release, auth=True, prefix="cluster-lock/leader/") as server:
        async with opened(
            server.endpoints, prefix="cluster-lock/", user=server.username, password=server.password
        ) as driver:
            lease = await driver.grant_lease("a", 30)
            with pytest.raises(PermissionRefused, match="cluster-lock/last/telegram/42"):
                await driver.acquire(lease, LOCK, b"")


@pytest.mark.parametrize("who", ["wrong password", "unknown user", "nobody"])
async def test_wrong_credentials(server: EtcdServer, who: str) -> None:
    """A wrong password, an unknown user and none at all are refused as a matter of permission, and no text has it."""
    access: dict[str, Any] = {
        "wrong password": {"user": server.username, "password": "pa55word"},
        "unknown user": {"user": "somebody", "password": "pa55word"},
        "nobody": {},
    }[who]
    async with opened(server.endpoints, **access) as driver:
        for verb in (partial(driver.read, [LOCK]), partial(driver.wait_changed, [LOCK], 1, 5.0)):
            with pytest.raises(PermissionRefused) as caught:
                await verb()
            told = "".join(traceback.format_exception(caught.value)) + repr(driver) + driver.backend
            assert "pa55word" not in told


async def test_auth_may_be_switched_on_later(etcd_release: str) -> None:
    """A user that is given to an etcd without auth does no harm, and works on when auth is switched on."""
    with EtcdServer(release=etcd_release) as server:
        async with opened(
            server.endpoints, prefix=new_prefix(), user=server.username, password=server.password
        ) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            position = (await driver.read([LOCK])).position
            await asyncio.to_thread(server.set_up_auth)
            server.auth = True
            await driver.renew(lease)
            assert (await driver.wait_changed([LOCK], position, 0.1)).entries[LOCK].index == grant.index
            assert (await entry(driver)).index == grant.index
            await driver.release(grant, b"farewell")


async def test_rights_may_change(etcd_release: str) -> None:
    """A right that is taken away is refused, and once given again works, with no restart of ours."""
    with EtcdServer(release=etcd_release, auth=True) as server:
        async with opened(server.endpoints, user=server.username, password=server.password) as driver:
            lease = await driver.grant_lease("a", 60)
            grant = await taken(driver, lease)
            server.ctl("user", "revoke-role", server.username, "lock")
            with pytest.raises(PermissionRefused):
                await driver.read([LOCK])
            await driver.renew(lease)
            server.ctl("user", "grant-role", server.username, "lock")
            assert (await entry(driver)).index == grant.index
