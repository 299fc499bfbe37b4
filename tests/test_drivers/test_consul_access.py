"""Who is let in: TLS, ACL tokens, and the environment that must not decide it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.aio import run, until
from support.certs import Authority
from support.consul_lab import HEIR, LOCK, Recorder, client, record
from support.wiretap import Wiretap

from cluster_lock.drivers.consul.library import client_class
from cluster_lock.errors import BackendRefused, BackendUnavailable, ConfigError, PermissionRefused
from cluster_lock.testing.servers import ConsulServer, ServerTLS

pytestmark = pytest.mark.consul

KEYS = 'key_prefix "cluster-lock/" { policy = "write" }'
SESSIONS = 'session_prefix "" { policy = "write" }'


async def whole_life(url: str, **options: object) -> None:
    """Every verb, once."""
    async with client(url, prefix="cluster-lock/", **options) as driver:
        lease, theirs = await driver.grant_lease("a", 30), await driver.grant_lease("heir", 30)
        await driver.renew(lease)
        grant = await driver.acquire(lease, LOCK, record("a"))
        assert grant is not None
        await driver.announce(theirs, HEIR, record("heir"))
        (heir,) = await driver.scan("standby/")
        assert await driver.transfer(grant, heir, record("heir"))
        position = (await driver.read([LOCK, HEIR])).position
        inherited = await driver.acquire(theirs, LOCK, record("heir"))
        assert inherited is not None
        await driver.release(inherited, record("heir", released=True))
        assert (await driver.wait_changed([LOCK, HEIR], position, 5)).entries[LOCK].lease is None
        await driver.withdraw(theirs, HEIR)
        await driver.revoke(lease)
        await driver.revoke(theirs)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure_server(tls: ServerTLS) -> Iterator[ConsulServer]:
    """Demands a client certificate."""
    with ConsulServer(dev=True, tls=tls) as server:
        yield server


def files(tls: ServerTLS) -> dict[str, str]:
    return {"ca": str(tls.ca), "cert": str(tls.client_cert), "key": str(tls.client_key)}


def test_tls_with_the_right_files(secure_server: ConsulServer, tls: ServerTLS) -> None:
    """With the right CA and a client certificate every verb works."""
    run(whole_life(secure_server.url, **files(tls)))


async def test_tls_with_a_wrong_ca(secure_server: ConsulServer, tls: ServerTLS, tmp_path: Path) -> None:
    """A server whose certificate another CA signed is refused, by name, and never spoken to."""
    wrong = files(tls) | {"ca": str(Authority(tmp_path, "other").ca)}
    async with client(secure_server.url, **wrong) as driver:
        with pytest.raises(BackendRefused, match="certificate is not trusted") as refused:
            await driver.grant_lease("a", 30)
        assert secure_server.url in str(refused.value)


async def test_an_untrusted_agent_ends_the_request(secure_server: ConsulServer, tls: ServerTLS, tmp_path: Path) -> None:
    """Behind an agent whose certificate is not trusted no other one is asked, now or later, so that no token goes
    there."""
    wrong = files(tls) | {"ca": str(Authority(tmp_path, "other").ca)}
    async with Wiretap() as wiretap, client(secure_server.url, wiretap.url, token="5ecret", **wrong) as driver:
        for _ in range(2):
            with pytest.raises(BackendRefused, match=f"{secure_server.url}.* is not trusted"):
                await driver.read([LOCK])
        assert wiretap.heard == b""


async def test_tls_without_a_client_certificate(secure_server: ConsulServer, tls: ServerTLS) -> None:
    """A server that wants a client certificate and gets none is a permission that is missing, said so."""
    async with client(secure_server.url, ca=str(tls.ca)) as driver:
        said: list[str] = []

        async def refused() -> bool:
            try:
                await driver.grant_lease("a", 30)
            except BackendUnavailable:  # the server hangs up behind its refusal, which may get lost in that
                return False
            except PermissionRefused as error:
                said.append(str(error))
            return True

        await until(refused)
        assert "client certificate" in said[0]


async def test_tls_on_one_side_only(secure_server: ConsulServer, tls: ServerTLS) -> None:
    """http to an https port, and https to an http port, are errors that show what was heard there."""
    async with client(secure_server.url.replace("https:", "http:")) as driver:
        with pytest.raises(BackendRefused, match="HTTPS server"):
            await driver.grant_lease("a", 30)
    async with client(secure_server.admin_url.replace("http:", "https:"), **files(tls)) as driver:
        with pytest.raises(BackendUnavailable, match=r"(?i)ssl"):
            await driver.grant_lease("a", 30)


def test_tls_files_that_cannot_be_used(tls: ServerTLS, tmp_path: Path) -> None:
    """A file that is missing, no certificate, or not the certificate's key is named when the driver is opened."""
    garbage, missing = tmp_path / "garbage.crt", tmp_path / "missing.crt"
    garbage.write_text("no certificate")
    _, other_key = Authority(tmp_path).issue("somebody else")

    async def open_with(**options: str) -> None:
        async with client("https://127.0.0.1:1", **options):
            pass

    for wrong, named in (
        ({"ca": str(missing)}, missing),
        ({"ca": str(garbage)}, garbage),
        (files(tls) | {"cert": str(garbage)}, garbage),
        (files(tls) | {"key": str(other_key)}, other_key),
    ):
        with pytest.raises(ConfigError) as refused:
            run(open_with(**wrong))
        assert str(named) in str(refused.value)


def test_tls_key_with_a_passphrase_never_asks(tls: ServerTLS, tmp_path: Path) -> None:
    """An encrypted key is an error, not a question at the terminal of a daemon."""
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", str(tls.client_key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)

    async def main() -> None:
        async with client("https://127.0.0.1:1", **files(tls) | {"key": str(locked)}):
            pass

    with pytest.raises(ConfigError, match=r"locked\.key"):
        run(main())


# -- ACL ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[ConsulServer]:
    """Denies what no policy allows."""
    with ConsulServer(dev=True, acl=True) as server:
        yield server


def test_least_rights_are_enough(guarded_server: ConsulServer) -> None:
    """A token that may write the prefix and sessions, and nothing else, is enough for every verb."""
    run(whole_life(guarded_server.url, token=guarded_server.create_token(f"{KEYS} {SESSIONS}")))


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (KEYS, r"session_prefix \"\" \{ policy = \"write\" \}"),
        (SESSIONS, r"key_prefix \"cluster-lock/\" \{ policy = \"write\" \}"),
        (
            f'{SESSIONS} key_prefix "cluster-lock/" {{ policy = "read" }}',
            r"key_prefix \"cluster-lock/\" \{ policy = \"write\" \}",
        ),
        ("", r"session_prefix \"\" \{ policy = \"write\" \}"),
    ],
    ids=["no sessions", "no keys", "keys read-only", "nothing"],
)
def test_each_missing_right_is_named(guarded_server: ConsulServer, rules: str, missing: str) -> None:
    """A token without one of the rights is refused with the rule that its policy lacks, and is not repeated there."""
    token = guarded_server.create_token(rules)
    with pytest.raises(PermissionRefused, match=missing) as refused:
        run(whole_life(guarded_server.url, token=token))
    assert token not in str(refused.value)


def test_rights_on_the_session_node_only(guarded_server: ConsulServer) -> None:
    """With a session node, the right on that node's sessions is enough, and is what a refusal names."""
    guarded_server.request("PUT", "/v1/catalog/register", {"Node": "external", "Address": "127.0.0.1"})
    mine = guarded_server.create_token(f'{KEYS} session "external" {{ policy = "write" }}')
    run(whole_life(guarded_server.url, token=mine, session_node="external"))
    with pytest.raises(PermissionRefused, match='session "external"'):
        run(whole_life(guarded_server.url, token=guarded_server.create_token(KEYS), session_node="external"))


@pytest.mark.parametrize("token", [None, "11111111-2222-3333-4444-555555555555"])
def test_no_token_or_an_unknown_one(guarded_server: ConsulServer, token: str | None) -> None:
    """Without a token, or with one that the server does not know, it is a refused permission that says which."""
    with pytest.raises(PermissionRefused, match="does not know the token" if token else "needs") as refused:
        run(whole_life(guarded_server.url, token=token))
    assert token is None or token not in str(refused.value)


async def test_token_travels_in_the_header_only(guarded_server: ConsulServer) -> None:
    """Every request carries the token as X-Consul-Token, and none has it in its URL or body."""
    token = guarded_server.create_token(f"{KEYS} {SESSIONS}")
    async with Recorder(guarded_server) as proxy:
        await whole_life(proxy.url, token=token)
        assert len(proxy.requests) > 10
        for request in proxy.requests:
            assert request.count(token) == 1, request
            assert f"\r\nX-Consul-Token: {token}\r\n" in request, request


async def test_a_library_that_puts_the_token_into_the_address(
    guarded_server: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release of the client library that would put the token into the URL is refused before anything is sent."""
    keys = client_class()(None, None, None).kv
    get = type(keys).get

    def leaking(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        http = self.agent.http
        self.agent.http = SimpleNamespace(
            get=lambda callback, path, params, headers: http.get(
                callback, path, [*params, ("token", "5ecret")], headers
            )
        )
        try:
            return get(self, key, *args, **kwargs)
        finally:
            self.agent.http = http

    monkeypatch.setattr(type(keys), "get", leaking)
    async with Recorder(guarded_server) as proxy, client(proxy.url, token="5ecret") as driver:
        with pytest.raises(BackendRefused, match="nothing was sent") as refused:
            await driver.read([LOCK])
        assert "5ecret" not in str(refused.value)
        assert proxy.requests == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1", "a:b:c:d", "unix:///nowhere"])
def test_environment_changes_nothing(
    guarded_server: ConsulServer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Where to go and what to show is decided by the arguments, whatever CONSUL_HTTP_* and the proxy variables say."""
    for name, value in {
        "CONSUL_HTTP_ADDR": address,
        "CONSUL_HTTP_TOKEN": "11111111-2222-3333-4444-555555555555",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "false",
        "http_proxy": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    run(whole_life(guarded_server.url, token=guarded_server.create_token(f"{KEYS} {SESSIONS}")))


async def test_datacenter(consul_server: ConsulServer) -> None:
    """The datacenter goes along with every request; one that does not exist is answered so, not ignored."""
    async with Recorder(consul_server) as proxy:
        await whole_life(proxy.url, datacenter=consul_server.datacenter)
        assert all("dc=dc1" in line for line in proxy.lines())
    async with client(consul_server.url, datacenter="nowhere") as driver:
        with pytest.raises(BackendUnavailable, match="No path to datacenter"):
            await driver.grant_lease("a", 30)
